"""The plain lines, the live panel, and the arithmetic behind both."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from muzero_ray.runs.progress import Progress


class FakeClock:
    def __init__(self) -> None:
        self.now = 1_000.0

    def __call__(self) -> float:
        return self.now


def _plain(clock: FakeClock, learner_steps: int = 1_000, **limits: float) -> tuple[Progress, io.StringIO]:
    out = io.StringIO()
    console = Console(file=out, force_terminal=False, width=80)
    return Progress(learner_steps, console=console, clock=clock, **limits), out  # type: ignore[arg-type]


def test_piped_first_line_at_once_then_one_each_interval() -> None:
    clock = FakeClock()
    progress, out = _plain(clock)
    with progress:
        for _ in range(25):
            progress.update({"env_steps": 5, "learner_steps": clock.now - 1_000.0})
            clock.now += 1.0
    lines = out.getvalue().splitlines()
    # At 0, 10 and 20 s, and what was not printed yet when it closed.
    assert [line[:7] for line in lines] == ["[  0%] ", "[  1%] ", "[  2%] ", "[  2%] "]
    assert "learner steps 24/1,000" in lines[-1]
    assert "\x1b" not in out.getvalue()


def test_piped_line_shows_what_is_known_and_nothing_else() -> None:
    progress, out = _plain(FakeClock())
    progress.update(
        {
            "score": 21.5,
            "random_score": 1.2,
            "env_steps": 123_456,
            "actors/env_steps_per_s": 987.654,
            "learner_steps": 250,
            "replay/size": 5_000,
            "loss/total": 0.12345,
            "actors/weights_lag": 3,
            "actors/alive": 2,
            "best_score": None,
            "search/depth": 4.0,
        }
    )
    assert out.getvalue().splitlines() == [
        "[ 25%] score 21.5  random 1.2  env steps 123,456  env steps/s 987.7  learner steps 250/1,000  replay 5,000  "
        "loss 0.1235  weight lag 3  actors 2  elapsed 0:00"
    ]


def test_bookkeeping_alone_prints_no_line() -> None:
    progress, out = _plain(FakeClock())
    with progress:
        progress.update({"seconds_before": 60.0})
    assert out.getvalue() == ""


def test_messages_are_printed_at_once_and_literally() -> None:
    progress, out = _plain(FakeClock())
    progress.message("[bold]checkpoint[/bold] at runs/" + "x" * 100)
    assert out.getvalue() == "[bold]checkpoint[/bold] at runs/" + "x" * 100 + "\n"


def test_eta_is_at_the_speed_of_this_process() -> None:
    clock = FakeClock()
    progress, _ = _plain(clock)
    assert progress.eta() is None
    progress.update({"learner_steps": 400})  # resumed at 400 of 1000
    clock.now += 10.0
    progress.update({"learner_steps": 500})  # 10 steps a second, 500 to go
    assert progress.eta() == pytest.approx(50.0)
    assert progress.fraction() == pytest.approx(0.5)


def test_the_nearest_limit_counts() -> None:
    clock = FakeClock()
    progress, _ = _plain(clock, episodes=10, minutes=5)
    progress.update({"learner_steps": 0, "episodes": 0, "seconds": 30.0})
    clock.now += 30.0  # 60 of 300 s
    progress.update({"learner_steps": 100, "episodes": 1, "seconds": 60.0})
    assert progress.fraction() == pytest.approx(0.2)
    assert progress.eta() == pytest.approx(240.0)  # learner: 270 s, episodes: 270 s
    progress.update({"episodes": 8})
    assert progress.fraction() == pytest.approx(0.8)
    assert progress.eta() == pytest.approx(30 / 8 * 2)


def test_terminal_gets_a_panel_and_its_cursor_back_after_an_exception() -> None:
    out = io.StringIO()
    console = Console(file=out, force_terminal=True, width=100, height=30, _environ={"TERM": "xterm"})

    def fail() -> None:
        with Progress(10, title="my [run]", console=console) as progress:
            progress.update({"learner_steps": 5, "score": 3.0})
            progress.message("an event")
            raise RuntimeError("env broke")

    with pytest.raises(RuntimeError, match="env broke"):
        fail()
    text = out.getvalue()
    assert "my [run]" in text
    assert "an event" in text
    assert "5/10" in text
    assert text.rindex("\x1b[?25h") > text.rindex("\x1b[?25l")  # cursor shown after it was hidden


def test_close_twice_prints_the_last_line_once() -> None:
    clock = FakeClock()
    progress, out = _plain(clock)
    progress.update({"learner_steps": 1})
    progress.update({"learner_steps": 2})
    progress.close()
    progress.close()
    assert len(out.getvalue().splitlines()) == 2


def test_what_goes_on_besides_training_is_shown_in_front_and_a_run_that_is_over_has_no_eta() -> None:
    clock = FakeClock()
    progress, out = _plain(clock, learner_steps=10)
    progress.update({"learner_steps": 5})
    clock.now += 10.0
    progress.doing("evaluation: 1 of 3 episodes, 20 moves")
    progress.update({"learner_steps": 8})
    clock.now += 10.0
    progress.doing("final evaluation: 0 of 3 episodes, 4 moves")
    progress.update({"learner_steps": 10})
    clock.now += 10.0
    progress.doing(None)
    progress.update({"learner_steps": 10})
    assert out.getvalue().splitlines() == [
        "[ 50%] learner steps 5/10  elapsed 0:00",
        "[ 80%] evaluation: 1 of 3 episodes, 20 moves  learner steps 8/10  elapsed 0:10  ETA 0:06",
        "[100%] final evaluation: 0 of 3 episodes, 4 moves  learner steps 10/10  elapsed 0:20",
        "[100%] learner steps 10/10  elapsed 0:30",
    ]
