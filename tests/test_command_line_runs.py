"""The commands as people type them: programs of their own, judged by what they print, leave behind and exit with."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import imageio.v3
import numpy as np
import pytest

from muzero_ray import launch
from muzero_ray.config.files import load_config
from muzero_ray.control.serial import SerialRunner
from muzero_ray.runs.checkpoint import load_checkpoint
from tests.patience import PATIENCE, until
from tests.small_runs import assert_same_run, rows, run_serial, small_config

ROOT = Path(launch.__file__).resolve().parent
LAST_LINE = re.compile(r"return_mean=(-?\d+\.\d+) return_std=(\d+\.\d+) episodes=(\d+) env_steps=(\d+)")

SMALL = shlex.split(
    "--serial --simulations 3 --max-moves 50 --run.wandb disabled --replay.min-size 64 --replay.capacity 1000 "
    "--replay.segment-length 10 --learner.batch-size 16 --learner.unroll-steps 3 --learner.td-steps 4 "
    "--network.hidden 16 --network.layers 16 --network.head-layers 16 --actors.envs-per-actor 4 "
    "--actors.rollout-steps 40 --run.log-steps 10 --evaluation.final-episodes 4"
)

SMALL_ATARI = shlex.split(
    "--serial --simulations 2 --max-moves 20 --run.wandb disabled --replay.min-size 16 --learner.batch-size 8 "
    "--env.atari.image-size 32 --network.channels 4 --network.head-channels 2 --network.head-layers 16 "
    "--actors.envs-per-actor 1 --actors.rollout-steps 10 --evaluation.final-episodes 1"
)


def start(*arguments: object) -> subprocess.Popen[str]:
    command = [sys.executable, str(ROOT / "launch.py"), *map(str, arguments)]
    # A session of its own, so that a test can press Ctrl-C on all its processes, as a terminal does.
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True)


def launch_program(*arguments: object) -> subprocess.CompletedProcess[str]:
    process = start(*arguments)
    try:
        out, err = process.communicate(timeout=PATIENCE)
    finally:
        process.kill()
    return subprocess.CompletedProcess(process.args, process.returncode, out, err)


@pytest.fixture(scope="module")
def cartpole_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`train cartpole --serial --iterations 30`, as a program of its own."""
    folder = tmp_path_factory.mktemp("runs")
    name = ["--run.name", "cartpole"]
    result = launch_program("train", "cartpole", "--iterations", 30, "--runs-dir", folder, *name, *SMALL)
    assert result.returncode == 0, result.stderr
    assert "trained: return_mean=" in result.stdout
    assert "random:  return_mean=" in result.stdout
    assert f"resume:  python {ROOT}/launch.py resume {folder / 'cartpole'} --iterations 60" in result.stdout
    return folder / "cartpole"


def test_train_leaves_a_finished_run(cartpole_run: Path) -> None:
    assert load_checkpoint(cartpole_run).step == 30
    assert {row["learner_steps"] for row in rows(cartpole_run)} == {10, 20, 30}
    config = load_config(cartpole_run / "config.yaml")
    assert (config.run.learner_steps, config.env.id, config.search.simulations) == (30, "CartPole-v1", 3)
    assert [path.suffix for path in cartpole_run.rglob("*") if path.suffix in (".pkl", ".pickle", ".pt", ".npy")] == []


def test_the_program_and_this_process_make_the_same_run(cartpole_run: Path, tmp_path: Path) -> None:
    """From the config.yaml that the run wrote: one seed, two processes, the same bytes."""
    config = load_config(cartpole_run / "config.yaml")
    assert run_serial(config, tmp_path / "again")
    assert_same_run(config, cartpole_run, tmp_path / "again")


def test_several_seeds_are_trained_and_reported_together(cartpole_run: Path, tmp_path: Path) -> None:
    """The run of seed 0 is the one that a command for seed 0 alone makes."""
    result = launch_program(
        *("train", "cartpole", "--iterations", 30, "--runs-dir", tmp_path, "--run.name", "both", "--seeds", 0, 1),
        *SMALL,
    )
    assert result.returncode == 0, result.stderr
    folders = [tmp_path / "both-s0", tmp_path / "both-s1"]
    finals = []
    for folder in (cartpole_run, *folders):
        entries = [json.loads(line) for line in (folder / "scores.jsonl").read_text().splitlines()]
        finals.append(next(entry["return_mean"] for entry in entries if entry["kind"] == "final"))
    assert finals[0] == finals[1]
    runs, together = result.stdout[result.stdout.index("RUN  ") :].split("\n\n")
    assert [line.split()[:3] for line in runs.splitlines()[1:]] == [
        [str(folder), "CartPole-v1", str(seed)] for seed, folder in enumerate(folders)
    ]
    name, count, mean, *_ = together.splitlines()[1].split()
    assert (name, count) == ("CartPole-v1", "2")
    assert float(mean) == pytest.approx(np.mean(finals[1:]), abs=0.01)
    report = launch_program("report", *folders, "--json")
    assert report.returncode == 0, report.stderr
    told = json.loads(report.stdout)
    assert [run["score"] for run in told["runs"]] == finals[1:]
    (aggregate,) = told["together"]
    assert aggregate["mean"] == pytest.approx(np.mean(finals[1:]))
    assert min(finals[1:]) <= aggregate["low"] <= aggregate["high"] <= max(finals[1:])


def test_evaluate_prints_json_alone_and_twice_the_same(cartpole_run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    result = launch_program("evaluate", cartpole_run, "--json", "--episodes", 6, "--seed", 40)
    assert result.returncode == 0, result.stderr
    score = json.loads(result.stdout)
    assert (score["episodes"], score["seed"], score["learner_step"]) == (6, 40, 30)
    assert len(score["returns"]) == 6
    assert score["return_mean"] == pytest.approx(np.mean(score["returns"]))
    assert score["return_std"] == pytest.approx(np.std(score["returns"]), abs=1e-5)
    assert score["env_steps"] == sum(score["returns"])  # one point a move
    assert all(1 <= value <= 50 for value in score["returns"])
    assert launch.main(["evaluate", str(cartpole_run), "--json", "--episodes", "6", "--seed", "40"]) == 0
    assert json.loads(capsys.readouterr().out) == score
    # The same weights under another number of episodes: a prefix.
    assert launch.main(["evaluate", str(cartpole_run), "--json", "--episodes", "3", "--seed", "40"]) == 0
    assert json.loads(capsys.readouterr().out)["returns"] == score["returns"][:3]


def test_evaluate_ends_with_the_line_for_programs(cartpole_run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert launch.main(["evaluate", str(cartpole_run)]) == 0
    line = capsys.readouterr().out.splitlines()[-1]
    match = LAST_LINE.fullmatch(line)
    assert match, line
    mean, _, episodes, steps = match.groups()
    assert int(episodes) == 4  # the run's own number
    assert float(mean) * 4 == pytest.approx(int(steps), abs=0.01)
    # A checkpoint's folder is as good as the run's, and names exactly that one.
    assert launch.main(["evaluate", str(cartpole_run / "checkpoints" / "30")]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == line


def test_resume_goes_on_under_a_larger_budget(cartpole_run: Path, tmp_path: Path) -> None:
    folder = tmp_path / "cartpole"
    shutil.copytree(cartpole_run, folder)
    before = load_checkpoint(folder).state["book"]
    result = launch_program("resume", folder, "--iterations", 45)
    assert result.returncode == 0, result.stderr
    after = load_checkpoint(folder)
    assert after.step == 45
    assert after.state["book"]["env_steps"] > before["env_steps"]
    assert [row["learner_steps"] for row in rows(folder)] == [10, 20, 30, 40, 45]


def interrupt_after_a_row(folder: Path, *options: str, number: signal.Signals = signal.SIGINT) -> str:
    """Start an endless run in `folder`, stop it once it has written metrics; returns what it printed.

    Ctrl-C and the end of the terminal go to all its processes, as from a terminal; other signals to the program alone.
    """
    name = ["--runs-dir", folder.parent, "--run.name", folder.name]
    process = start("train", "cartpole", "--iterations", 10**6, *name, *options)
    try:

        def a_row_is_written() -> bool:
            assert process.poll() is None, process.communicate()
            return (folder / "metrics.jsonl").exists() and bool(rows(folder))

        until(a_row_is_written, "no row of metrics was written")
        (os.killpg if number in (signal.SIGINT, signal.SIGHUP) else os.kill)(process.pid, number)
        out, err = process.communicate(timeout=PATIENCE)
    finally:
        process.kill()
    assert process.returncode == 130, err
    assert "Traceback" not in err
    checkpoint = load_checkpoint(folder)
    assert checkpoint.step >= 10
    assert checkpoint.state["metrics_rows"] == len(rows(folder))
    assert f"stopped; go on with: python {ROOT}/launch.py resume {folder}" in out
    assert "trained:" not in out
    return out


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGHUP])
def test_one_interrupt_leaves_a_checkpoint_and_the_way_to_go_on(number: signal.Signals, tmp_path: Path) -> None:
    folder = tmp_path / "runs" / "stopped"
    interrupt_after_a_row(folder, *SMALL, number=number)
    step = load_checkpoint(folder).step
    assert launch.main(["resume", str(folder), "--iterations", str(step + 5)]) == 0
    assert load_checkpoint(folder).step == step + 5


@pytest.mark.ray
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_one_interrupt_of_the_distributed_program_does_the_same(number: signal.Signals, tmp_path: Path) -> None:
    """A private Ray of its own; its processes get what the terminal sends too."""
    folder = tmp_path / "runs" / "stopped"
    distributed = [word for word in SMALL if word != "--serial"]
    out = interrupt_after_a_row(folder, *distributed, "--actors", "1", "--actors.num-cpus", "0.2", number=number)
    assert "starting Ray" in out
    run_state = load_checkpoint(folder).state["book"]
    assert run_state["env_steps"] >= run_state["limiter"]["inserted"] >= 64


def interrupt_in(monkeypatch: pytest.MonkeyPatch, method: str, times: int) -> None:
    """Replace a part of the serial runner by as many signals, then by a wait that only they can end."""

    def interrupted(runner: SerialRunner) -> bool:
        del runner
        for _ in range(times):
            handler = signal.getsignal(signal.SIGTERM)
            assert callable(handler)
            # Called, not sent: with the tests' Ray in this process, a signal would meet Ray's own handlers in C.
            handler(signal.SIGTERM, None)
        time.sleep(PATIENCE)
        raise AssertionError("the signal did not end it")

    monkeypatch.setattr(SerialRunner, method, interrupted)


def test_an_interrupted_final_evaluation_leaves_a_finished_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    interrupt_in(monkeypatch, "final_evaluation", 1)
    name = ["--runs-dir", str(tmp_path), "--run.name", "run"]
    assert launch.main(["train", "cartpole", "--iterations", "10", *name, *SMALL]) == launch.INTERRUPTED
    assert load_checkpoint(tmp_path / "run").step == 10
    assert f"Evaluate it with: python launch.py evaluate {tmp_path / 'run'}" in capsys.readouterr().out


def test_the_second_interrupt_leaves_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    interrupt_in(monkeypatch, "run", 2)
    name = ["--runs-dir", str(tmp_path), "--run.name", "run"]
    assert launch.main(["train", "cartpole", *name, *SMALL]) == launch.INTERRUPTED
    assert not (tmp_path / "run" / "checkpoints").exists()


def test_a_signal_that_a_library_swallows_during_the_start_ends_the_program_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    @contextlib.contextmanager
    def swallowing(*_: object) -> Iterator[None]:
        handler = signal.getsignal(signal.SIGTERM)
        assert callable(handler)
        with contextlib.suppress(KeyboardInterrupt):
            handler(signal.SIGTERM, None)
        yield None  # there is nothing to train with

    monkeypatch.setattr(launch, "serial_runner", swallowing)
    name = ["--runs-dir", str(tmp_path), "--run.name", "run"]
    assert launch.main(["train", "cartpole", *name, *SMALL]) == launch.INTERRUPTED
    assert not (tmp_path / "run").exists()


def test_a_board_game_is_scored_from_both_seats(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = tmp_path / "board"
    assert run_serial(small_config("tictactoe"), run)
    capsys.readouterr()
    assert launch.main(["evaluate", str(run), "--opponent", "minimax", "--episodes", "9"]) == 0
    *_, first, second, last = capsys.readouterr().out.splitlines()
    outcomes = [re.fullmatch(r"moving (\w+): (\d+) won, (\d+) drawn, (\d+) lost", line) for line in (first, second)]
    (seat, *first_counts), (other_seat, *second_counts) = (match.groups() for match in outcomes if match)
    assert (seat, other_seat) == ("first", "second")
    assert [sum(map(int, counts)) for counts in (first_counts, second_counts)] == [5, 4]
    assert first_counts[0] == second_counts[0] == "0"  # nobody beats an exact player
    lost = int(first_counts[2]) + int(second_counts[2])
    assert last.startswith(f"return_mean={-lost / 9:.3f} ")


@pytest.fixture(scope="module")
def breakout_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`train --game Breakout --serial --episodes 1 ...` with a tiny network."""
    folder = tmp_path_factory.mktemp("runs")
    arguments = ["train", "--game", "Breakout", "--episodes", "1", "--runs-dir", str(folder)]
    assert launch.main([*arguments, *SMALL_ATARI]) == 0
    (run,) = folder.iterdir()
    return run


def test_breakout_trains_and_films_its_last_evaluation(breakout_run: Path) -> None:
    assert breakout_run.name.lower().startswith("breakout-s0-")
    run_state = load_checkpoint(breakout_run).state["book"]
    assert (run_state["episodes"], run_state["env_steps"]) == (1, 20)
    (video,) = (breakout_run / "videos").glob("final-*.mp4")
    assert len(imageio.v3.imread(video)) == 21


def test_play_writes_a_film_of_each_game(
    breakout_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert launch.main(["play", str(breakout_run), "--episodes", "2", "--video", str(tmp_path / "new" / "b.mp4")]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [re.sub(r"return=\S+", "return=R", line) for line in lines] == [
        f"return=R length=20 video={tmp_path / 'new' / f'b-{episode}.mp4'}" for episode in range(2)
    ]
    for episode in range(2):
        frames = imageio.v3.imread(tmp_path / "new" / f"b-{episode}.mp4")
        assert len(frames) == 21
        assert frames.std() > 1.0
    assert launch.main(["play", str(breakout_run), "--seed", "7"]) == 0
    default = breakout_run / "videos" / f"play-{load_checkpoint(breakout_run).step}-seed7.mp4"
    assert str(default) in capsys.readouterr().out
    assert default.stat().st_size > 1000


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["evaluate", "nowhere"], 2, "does not exist"),
        (["train", "cartpole", "--serial", "--env.id", "NoSuchGame-v7"], 2, "NoSuchGame-v7"),
    ],
)
def test_mistakes_end_with_one_message(
    arguments: list[str], code: int, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    extra = ["--runs-dir", str(tmp_path), "--run.wandb", "disabled"] if arguments[0] == "train" else []
    assert launch.main([*arguments, *extra]) == code
    err = capsys.readouterr().err
    assert err.startswith("error: ")
    assert message in err
    assert "Traceback" not in err


def test_a_broken_environment_ends_a_serial_run_with_its_own_exit_code(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    game = ["--env.id", "tests.faulty_environment:Breaks-v0"]
    assert launch.main(["train", "cartpole", *game, "--runs-dir", str(tmp_path), *SMALL]) == 3
    assert re.match(r"error: environment \S*Breaks-v0 \(seed \d+, step \d+\): observation", capsys.readouterr().err)


def test_a_run_folder_is_never_written_over(cartpole_run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = sorted(path for path in cartpole_run.rglob("*"))
    name = ["--runs-dir", str(cartpole_run.parent), "--run.name", cartpole_run.name]
    assert launch.main(["train", "cartpole", *name, *SMALL]) == 2
    assert f"python launch.py resume {cartpole_run}" in capsys.readouterr().err
    assert sorted(path for path in cartpole_run.rglob("*")) == before
