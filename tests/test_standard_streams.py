"""Standard output that fails, blocks, is closed or cannot show a character: it ends a display, and never a run."""

from __future__ import annotations

import contextlib
import fcntl
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

import pytest

from muzero_ray import launch, standard_streams
from muzero_ray.runs.checkpoint import load_checkpoint
from muzero_ray.runs.progress import Progress
from muzero_ray.standard_streams import QUEUED_WRITES, Display, printable_lines
from tests.patience import PATIENCE
from tests.small_runs import rows
from tests.test_command_line_runs import ROOT, SMALL

Output = Callable[[], "contextlib.AbstractContextManager[int]"]


@contextlib.contextmanager
def reader_gone() -> Iterator[int]:
    """A pipe, as in `train | head`, whose reader has left."""
    reader, writer = os.pipe()
    os.close(reader)
    yield writer
    os.close(writer)


@contextlib.contextmanager
def reader_asleep() -> Iterator[int]:
    """A pipe whose reader does not read, full to the brim: whoever writes waits."""
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    with contextlib.suppress(BlockingIOError):
        while True:
            os.write(writer, b"x" * 512)
    os.set_blocking(writer, True)
    yield writer
    os.set_blocking(reader, False)
    with contextlib.suppress(BlockingIOError):  # let a thread go that still waits
        while os.read(reader, 1 << 16):
            pass
    os.close(reader)
    os.close(writer)


@contextlib.contextmanager
def full_disk() -> Iterator[int]:
    descriptor = os.open("/dev/full", os.O_WRONLY)
    yield descriptor
    os.close(descriptor)


@contextlib.contextmanager
def terminal_gone() -> Iterator[int]:
    """A terminal whose window was closed."""
    window, terminal = os.openpty()
    os.close(window)
    yield terminal
    os.close(terminal)


@contextlib.contextmanager
def stopped_terminal() -> Iterator[int]:
    """A terminal where Ctrl-S was pressed: it takes no more output."""
    window, terminal = os.openpty()
    os.write(window, b"\x13")
    yield terminal
    os.write(window, b"\x11")
    os.close(window)
    os.close(terminal)


OUTPUTS = [reader_gone, reader_asleep, full_disk, terminal_gone, stopped_terminal]


@pytest.mark.parametrize("output", OUTPUTS)
def test_a_display_neither_fails_nor_waits(output: Output, monkeypatch: pytest.MonkeyPatch) -> None:
    """More writes than any pipe or queue holds: the test ends, or the run would not."""
    monkeypatch.setattr(standard_streams, "CLOSE_SECONDS", 0.1)
    with output() as descriptor, os.fdopen(os.dup(descriptor), "w") as stream:
        monkeypatch.setattr(sys, "stdout", stream)
        with Progress(10) as progress:
            for step in range(2 * QUEUED_WRITES):
                progress.message(f"step {step}")
            progress.update({"learner_steps": 1})
        monkeypatch.undo()


def test_a_display_writes_everything_in_order_before_it_closes(tmp_path: Path) -> None:
    with (tmp_path / "out").open("w") as stream:
        display = Display(stream)
        for number in range(200):
            display.write(f"{number}\n")
        display.close()
        display.write("after\n")
        display.close()
    assert (tmp_path / "out").read_text().split() == [*map(str, range(200)), "after"]


def test_what_an_encoding_lacks_is_shown_as_an_escape(tmp_path: Path) -> None:
    with (tmp_path / "out").open("w", encoding="ascii") as stream:
        display = Display(stream)
        display.write("runs/\N{SNOWMAN} \udcff\n")
        display.close()
    assert (tmp_path / "out").read_text() == "runs/\\u2603 \\udcff\n"


def test_what_a_reader_left_behind_goes_nowhere() -> None:
    """Not only the display's: an environment that prints would fail next."""
    with reader_gone() as descriptor, os.fdopen(os.dup(descriptor), "w") as stream:
        display = Display(stream)
        display.write("x")
        display.close()
        os.write(stream.fileno(), b"printed by a library")


def test_messages_cannot_steer_a_terminal() -> None:
    assert printable_lines("a\x1b[31mb\nc\rd\N{LATIN SMALL LETTER E WITH ACUTE}\x9b") == "a\\x1b[31mb\nc\\rd\xe9\\x9b"


# --- programs ------------------------------------------------------------------------------------------------------


def program(*arguments: object, **options: Any) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "launch.py"), *map(str, arguments)]
    return subprocess.run(command, timeout=PATIENCE, text=True, check=False, stderr=subprocess.PIPE, **options)


@pytest.mark.parametrize("output", [reader_gone, reader_asleep])
def test_a_run_goes_on_to_its_end_without_a_display(output: Output, tmp_path: Path) -> None:
    with output() as descriptor:
        command = ("train", "cartpole", "--iterations", 10, "--runs-dir", tmp_path, "--run.name", "run", *SMALL)
        result = program(*command, stdout=descriptor)
    assert (result.returncode, result.stderr) == (0, "")
    assert load_checkpoint(tmp_path / "run").step == 10


def test_a_run_needs_no_standard_streams_at_all(tmp_path: Path) -> None:
    """`<&- >&- 2>&-`. Nothing that libraries print ends up in a file of the run, which would get those numbers."""
    command = ("train", "cartpole", "--iterations", 10, "--runs-dir", tmp_path, "--run.name", "run", *SMALL)

    def close() -> None:
        for descriptor in range(3):
            os.close(descriptor)

    process = subprocess.Popen([sys.executable, str(ROOT / "launch.py"), *map(str, command)], preexec_fn=close)
    assert process.wait(timeout=PATIENCE) == 0
    assert load_checkpoint(tmp_path / "run").step == 10
    assert len(rows(tmp_path / "run")) == 1


def test_a_run_in_a_folder_that_the_terminal_cannot_spell(tmp_path: Path) -> None:
    name = "m\xfc-\N{SNOWMAN}"
    command = ("train", "cartpole", "--iterations", 10, "--runs-dir", tmp_path, "--run.name", name, *SMALL)
    environment = {**os.environ, "PYTHONIOENCODING": "ascii", "LC_ALL": "C"}
    result = program(*command, stdout=subprocess.PIPE, env=environment)
    assert (result.returncode, result.stderr) == (0, "")
    assert f"run:     {tmp_path}/m\\xfc-\\u2603\n" in result.stdout


RESULTS = [("help",), ("presets",), ("train", "--help"), ("evaluate", "--help")]


@pytest.mark.parametrize("command", RESULTS, ids=" ".join)
def test_a_result_that_nobody_reads_ends_quietly(command: tuple[str, ...]) -> None:
    with reader_gone() as descriptor:
        result = program(*command, stdout=descriptor)
    assert (result.returncode, result.stderr) == (0, "")


@pytest.mark.parametrize("command", RESULTS, ids=" ".join)
def test_a_result_that_cannot_be_written_is_an_error(command: tuple[str, ...]) -> None:
    with full_disk() as descriptor:
        result = program(*command, stdout=descriptor)
    assert result.returncode == 1
    assert result.stderr == (
        "error: standard output: the result was not written (No space left on device). Free space there, or send it "
        "elsewhere\n"
    )


@pytest.mark.parametrize("output", [reader_gone, full_disk, terminal_gone])
def test_an_error_that_nobody_reads_keeps_its_exit_code(output: Output) -> None:
    with output() as descriptor:
        command = [sys.executable, str(ROOT / "launch.py"), "evaluate", "nowhere"]
        assert subprocess.run(command, timeout=PATIENCE, check=False, stderr=descriptor).returncode == 2


def test_results_of_this_process_reach_a_stream_in_memory(capsys: pytest.CaptureFixture[str]) -> None:
    assert launch.main(["presets"]) == 0
    assert capsys.readouterr().out.startswith("PRESET ")


@pytest.mark.parametrize(
    "environment",
    [{"TERM": "dumb"}, {"COLUMNS": "0", "LINES": "0"}, {"COLUMNS": "1", "LINES": "1"}, {"NO_COLOR": "1"}, {"TERM": ""}],
    ids=str,
)
def test_terminals_of_every_kind(environment: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    window, terminal = os.openpty()
    fcntl.ioctl(terminal, 0x5414, bytes(8))  # TIOCSWINSZ: no size, as of many that are not real
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    stream: IO[str] = os.fdopen(terminal, "w")
    monkeypatch.setattr(sys, "stdout", stream)
    with Progress(10) as progress:
        progress.update({"learner_steps": 5})
        progress.message("an event")
    monkeypatch.undo()
    os.set_blocking(window, False)
    seen = b""
    with contextlib.suppress(BlockingIOError):
        while True:
            seen += os.read(window, 1 << 16)
    assert b"an event\r\n" in seen
    stream.close()
    os.close(window)
