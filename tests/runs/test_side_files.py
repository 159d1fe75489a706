"""`metrics.jsonl` and `scores.jsonl`, damaged in every way: good lines are kept, bad ones named, the run goes on."""

from __future__ import annotations

import json
import os
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from muzero_ray.control.run_state import RunState
from muzero_ray.runs import side_files
from muzero_ray.runs.checkpoint import Checkpoint, load_checkpoint
from muzero_ray.runs.layout import METRICS_FILE, SCORES_FILE
from muzero_ray.runs.output import RunOutput
from muzero_ray.runs.side_files import SideFile, keep_rows, keep_scores, row_problem, score_problem
from muzero_ray.standard_streams import printable
from tests.runs.metric_rows import a_row
from tests.runs.test_output import evaluation, save, scores
from tests.small_runs import rows, small_config

GOOD = json.dumps(a_row(10)).encode() + b"\n"

BAD = {
    b"\n": "line 2 is not valid JSON",
    b"\x00\xff\xfe binary\n": "line 2 is not valid JSON",
    b"{" * 100_000 + b"\n": "line 2 is not valid JSON",
    b'{"a": ' + b"[" * 50 + b"]" * 50 + b"}\n": "line 2 is not a JSON object of a few levels",
    b"[]\n": "line 2 is not a JSON object of a few levels",
    b"null\n": "line 2 is not a JSON object of a few levels",
    b"{}\n": "line 2 has no number as env_steps",
    b'{"env_steps": 1, "learner_steps": "7"}\n': "line 2 has no number as learner_steps",
    b'{"env_steps": true, "learner_steps": 7}\n': "line 2 has no number as env_steps",
    b'{"env_steps": 1, "learner_steps": NaN}\n': "line 2 is not valid JSON",
    b'{"env_steps": 1, "learner_steps": 1e999}\n': "line 2 is not valid JSON",
    b'{"env_steps": 1, "learner_steps": 1' + b"0" * 5000 + b"}\n": "line 2 is not valid JSON",
    b'{"env_steps": 1, "learner_steps": 1' + b"0" * 400 + b"}\n": "line 2 has no number as learner_steps",
    b'{"env_steps": 1, "learner_steps": 1, "\\u001b[31m": []}\n': "line 2 has a \\x1b[31m that is not a number",
}


@pytest.mark.parametrize("line", BAD)
def test_a_bad_line_is_named_with_its_number(line: bytes, tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(GOOD + line + GOOD)
    file = SideFile(tmp_path / "f", row_problem)
    assert [(one.number, one.text) for one in file] == [(1, GOOD), (3, GOOD)]
    assert file.problems == [BAD[line]]


def test_the_last_line_may_be_cut_off(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(GOOD + GOOD[:-2])
    file = SideFile(tmp_path / "f", row_problem)
    assert len(list(file)) == 1
    assert file.trouble() == "line 2 is cut off"
    (tmp_path / "f").write_bytes(GOOD + GOOD[:-1])  # only its line break is missing
    assert len(list(file := SideFile(tmp_path / "f", row_problem))) == 2
    assert file.problems == []
    keep_rows(tmp_path / "f", 2, 10)
    assert (tmp_path / "f").read_bytes() == GOOD + GOOD


@pytest.mark.parametrize("tail", [b"", b"\n"])
def test_a_huge_file_is_not_read_whole(tail: bytes, tmp_path: Path) -> None:
    """6 GB of zeros after a good line. The second line is too long, and nothing after it is read."""
    path = tmp_path / "f"
    path.write_bytes(GOOD)
    os.truncate(path, 6 << 30)
    with path.open("ab") as out:
        out.write(tail)
    file = SideFile(path, row_problem)
    tracemalloc.start()
    try:
        assert len(list(file)) == 1
        assert tracemalloc.get_traced_memory()[1] < 4 * side_files.MAX_LINE_BYTES
    finally:
        tracemalloc.stop()
    assert file.problems[0] == f"line 2 is longer than {side_files.MAX_LINE_BYTES} bytes"


def test_a_file_of_bad_lines_is_given_up(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"\n" * 1_000_000)
    file = SideFile(tmp_path / "f", row_problem)
    assert list(file) == []
    assert len(file.problems) == side_files.MAX_BAD_LINES + 1
    assert file.problems[-1] == f"what follows line {side_files.MAX_BAD_LINES} was not read"
    assert len(file.trouble()) < 300


ROWS = [json.dumps(a_row(steps)).encode() + b"\n" for steps in range(20, 120, 20)]
"""Rows of learner steps 10 to 50. The checkpoint is of step 30, when there were 3."""


@pytest.mark.parametrize(
    ("lines", "kept", "warning"),
    [
        (ROWS, [10, 20, 30], None),
        ([*ROWS[:3], b"what comes after the checkpoint is not looked at"], [10, 20, 30], None),
        ([ROWS[0], b"{}\n", *ROWS[2:]], [10, 30], "line 2 has no number as env_steps"),
        ([ROWS[0], b"{}\n", *ROWS[1:]], [10, 20, 30], "line 2 has no number as env_steps"),
        ([*ROWS[:2], ROWS[2][:-4]], [10, 20], "line 3 is cut off"),
        (ROWS[:1], [10], "holds 1 of the 3 rows"),
        ([], [], "holds 0 of the 3 rows"),
        ([b"\0" * 999], [], "line 1 is cut off"),
    ],
)
def test_the_rows_of_the_checkpoint_are_kept(
    lines: list[bytes], kept: list[int], warning: str | None, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / METRICS_FILE
    path.write_bytes(b"".join(lines))
    last = keep_rows(path, 3, 30)
    assert [row["learner_steps"] for row in rows(tmp_path)] == kept
    assert last.get("learner_steps") == (kept[-1] if kept else None)
    assert (warning in caplog.text) if warning else caplog.text == ""
    # Nothing is deleted that somebody may still want to look at.
    is_damaged = warning is not None and "line" in warning
    assert (tmp_path / "metrics.jsonl.damaged").exists() == is_damaged
    if is_damaged:
        assert str(path) in caplog.text
        assert (tmp_path / "metrics.jsonl.damaged").read_bytes() == b"".join(lines)
        assert keep_rows(path, 3, 30) == last
        assert not (tmp_path / "metrics.jsonl.damaged-2").exists()


def test_scores_of_later_weights_and_bad_ones_go(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / SCORES_FILE
    lines = [json.dumps({"kind": "evaluation", "learner_step": step}).encode() + b"\n" for step in (10, 40, 30)]
    path.write_bytes(b"".join([lines[0], b'{"learner_step": 10}\n', *lines[1:]]))
    keep_scores(path, 30)
    assert path.read_bytes() == lines[0] + lines[2]
    assert f"{path} is damaged: line 2 has no kind. The run goes on with its 2 good lines" in caplog.text
    path.write_bytes(b"x\n")
    keep_scores(path, 30)
    assert path.read_bytes() == b""
    assert sorted(os.listdir(tmp_path)) == ["scores.jsonl", "scores.jsonl.damaged", "scores.jsonl.damaged-2"]
    keep_scores(tmp_path / "missing", 30)
    assert not (tmp_path / "missing").exists()


# A whole run.


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Checkpoint]:
    """Three rows and two scores, and a checkpoint after them."""
    folder = tmp_path_factory.mktemp("side-files") / "run"
    config = small_config()
    run_state = RunState(config)
    with RunOutput.create(config, folder) as output:
        for step in (10, 20, 30):
            run_state.learner_steps = step
            output.write_row(run_state)
            if step > 10:
                output.scored(run_state, evaluation(float(step)), step)
        save(output, run_state, 30)
    return folder, load_checkpoint(folder)


def reopened(run: tuple[Path, Checkpoint], damage: Callable[[Path], object]) -> tuple[list[Any], list[Any]]:
    """The learner steps of the rows and scores that a resumed run goes on from, and one row later."""
    folder, checkpoint = run
    originals = {name: (folder / name).read_bytes() for name in (METRICS_FILE, SCORES_FILE)}
    config, run_state = small_config(), RunState(small_config())
    try:
        damage(folder)
        with RunOutput.reopen(config, folder, checkpoint) as output:
            run_state.learner_steps = 40
            output.write_row(run_state)
            output.scored(run_state, evaluation(1.0), 40)
            found = [row["learner_steps"] for row in rows(folder)], [entry["learner_step"] for entry in scores(output)]
            save(output, run_state, 40)
            output.finished(run_state, evaluation(1.0), evaluation(1.0), 40)
        # The checkpoint counts the rows that are there now.
        assert load_checkpoint(folder).state["metrics_rows"] == len(found[0])
        with RunOutput.reopen(config, folder, checkpoint):
            pass
    finally:
        for name in os.listdir(folder):
            if name.startswith(("metrics.jsonl", "scores.jsonl")):
                path = folder / name
                path.rmdir() if path.is_dir() and not path.is_symlink() else path.unlink()
        for name, content in originals.items():
            (folder / name).write_bytes(content)
    return found


def replaced(name: str, make: Callable[[Path], object]) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        (folder / name).unlink()
        make(folder / name)

    return damage


def huge(path: Path) -> None:
    path.touch()
    os.truncate(path, 6 << 30)


IN_PLACE: dict[str, Callable[[Path], object]] = {
    "gone": lambda _: None,
    "empty": lambda path: path.touch(),
    "garbage": lambda path: path.write_bytes(bytes(range(256))),
    "6 GB": huge,
    "folder": lambda path: path.mkdir(),
    "pipe": lambda path: os.mkfifo(path),
    "endless": lambda path: path.symlink_to("/dev/zero"),
    "dangling link": lambda path: path.symlink_to("nowhere"),
    "link to itself": lambda path: path.symlink_to(path.name),
    "NaN": lambda path: path.write_text('{"learner_steps": NaN, "learner_step": NaN, "kind": "final"}\n'),
}


@pytest.mark.parametrize("kind", IN_PLACE)
def test_a_run_goes_on_without_its_metrics(kind: str, run: tuple[Path, Checkpoint]) -> None:
    assert reopened(run, replaced(METRICS_FILE, IN_PLACE[kind])) == ([40], [20, 30, 40])


@pytest.mark.parametrize("kind", IN_PLACE)
def test_a_run_goes_on_without_its_scores(kind: str, run: tuple[Path, Checkpoint]) -> None:
    assert reopened(run, replaced(SCORES_FILE, IN_PLACE[kind])) == ([10, 20, 30, 40], [40])


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    name=st.sampled_from([METRICS_FILE, SCORES_FILE]),
    where=st.floats(0, 1),
    length=st.integers(0, 400),
    content=st.one_of(
        st.binary(max_size=200),
        st.dictionaries(
            st.sampled_from(["learner_steps", "env_steps", "learner_step", "kind", "loss/total", "x"]),
            st.one_of(st.none(), st.floats(), st.integers(), st.text(), st.just([])),
        ).map(lambda entry: b"\n" + json.dumps(entry).encode() + b"\n"),
    ),
)
def test_whatever_happens_to_the_bytes_a_run_goes_on(
    name: str, where: float, length: int, content: bytes, run: tuple[Path, Checkpoint]
) -> None:
    def damage(folder: Path) -> None:
        data = (folder / name).read_bytes()
        start = int(where * len(data))
        (folder / name).write_bytes(data[:start] + content + data[start + length :])

    found_rows, found_scores = reopened(run, damage)
    assert found_rows[-1] == found_scores[-1] == 40
    # What was not touched is all there.
    assert name == METRICS_FILE or found_rows == [10, 20, 30, 40]
    assert name == SCORES_FILE or found_scores == [20, 30, 40]


@pytest.mark.parametrize("rows", ["x", None, -1, 1 << 70, 2.5, True])
def test_a_damaged_checkpoint_is_still_called_by_its_name(run: tuple[Path, Checkpoint], rows: object) -> None:
    folder, checkpoint = run
    state = {**checkpoint.state, "metrics_rows": rows}
    with pytest.raises(side_files.CheckpointError, match=r"state\.json is damaged"):
        RunOutput.reopen(small_config(), folder, Checkpoint(**{**vars(checkpoint), "state": state}))


def test_nothing_printed_moves_the_cursor() -> None:
    text = "a\x1b[31m\x07\r\n\u202eä\ud800中"
    assert printable(text) == "a\\x1b[31m\\x07\\r\\n\\u202eä\\ud800中"
    assert score_problem({"kind": "final", "learner_step": 3}) is None
    assert not side_files.is_number(float(np.inf))
