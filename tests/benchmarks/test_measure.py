"""Timing, comparing, judging and writing down: what does not depend on how fast anything is."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks import __main__ as benchmarks
from benchmarks.bars import BARS, judge
from benchmarks.measure import Effort, Row, load_rows, make_row, rate, table, take_turns
from benchmarks.page import fill
from tests.benchmarks.rows import SMALL


def figure(name: str, value: float, ratio: float | None = None) -> Row:
    samples = {"a": [value], "b": [value / ratio if ratio else 1.0]}
    return make_row(name, "x", samples, "a", "b" if ratio else "", "other" if ratio else "")


def test_trials_take_turns_and_warm_up_is_not_counted() -> None:
    order: list[str] = []

    def trial(name: str) -> dict[str, float]:
        order.append(name)
        return {name: float(len(order))}

    samples = take_turns([lambda: trial("a"), lambda: trial("b"), lambda: trial("c")], 3)
    assert "".join(order) == "abc" + "abc" + "bca" + "cab"
    assert samples == {"a": [4.0, 9.0, 11.0], "b": [5.0, 7.0, 12.0], "c": [6.0, 8.0, 10.0]}


def test_ratios_are_of_the_same_turn() -> None:
    # The machine is twice as slow in the second turn and three times in the third: the ratio does not show it.
    samples = {"new": [60.0, 30.0, 20.0], "old": [30.0, 15.0, 10.0]}
    row = make_row("x", "steps/s", samples, "new", "old", "the old one")
    assert (row.figure, row.low, row.high) == (30.0, 20.0, 60.0)
    assert (row.ratio, row.ratio_low, row.ratio_high, row.baseline) == (2.0, 2.0, 2.0, "the old one")
    assert make_row("y", "ms", samples, "old").ratio is None


def test_rate_counts_work_over_time(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr("benchmarks.measure.time.perf_counter", lambda: now[0])

    def quarter_of_a_second() -> None:
        now[0] += 0.25

    assert rate(quarter_of_a_second, 7, seconds=1.1) == 28.0  # five calls of 7 in 1.25 s


@pytest.mark.parametrize(
    ("row", "met"),
    [
        (figure("tree/puct/B64/A4", 1_200_000), True),
        (figure("tree/puct/B64/A4", 1_199_999), False),
        (figure("replay/bytes/10000", 1_000), True),
        (figure("replay/bytes/10000", 1_001), False),
        (figure("system/busy", 1.9, ratio=0.95), True),
        (figure("system/busy", 1.9, ratio=0.94), False),
        (figure("system/busy", 1.9), False),  # a bar on a ratio that was not taken
        (figure("search/mlp/compiled-fp32/B64/S50", 10.0, ratio=0.7), True),  # either is enough
        (figure("search/mlp/compiled-fp32/B64/S50", 250_000.0, ratio=0.1), True),
        (figure("search/mlp/compiled-fp32/B64/S50", 10.0, ratio=0.1), False),
        (figure("search/mlp/torch-fp32/B64/S50", 10.0, ratio=0.1), None),  # the reference has no bar
    ],
)
def test_a_bar_is_met_or_not(row: Row, met: bool | None) -> None:
    (judged,) = judge([row])
    assert judged.met is met
    assert (judged.bar is None) == (met is None)


def test_bars_name_rows_once() -> None:
    assert len({bar.rows for bar in BARS}) == len(BARS)


def part(_effort: Effort) -> Iterator[Row]:
    yield figure("system/busy", 1.5, ratio=0.75)
    yield figure("replay/bytes/1", 12_345.0)
    yield figure("other", 1.25)


def test_the_command_writes_what_it_prints_and_prints_what_was_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "out" / "figures.json"
    benchmarks.run({"some": part}, SMALL, file)
    printed = capsys.readouterr().out
    written = json.loads(file.read_text())
    assert set(written) == {"date", "machine", "versions", "effort", "rows"}
    assert {"cpu", "cores", "flags"} <= set(written["machine"])
    assert {"python", "torch", "numpy", "numba", "ray"} <= set(written["versions"])
    restored = load_rows(written)
    assert restored == judge(list(part(SMALL)))
    assert table(restored) in printed
    benchmarks.main(["--table", str(file)])
    assert capsys.readouterr().out.splitlines() == printed.splitlines()[:-1]  # all but where it was written


def test_the_table_is_markdown_with_bars() -> None:
    lines = table(judge(list(part(SMALL)))).splitlines()
    assert len({len(line) for line in lines}) == 1
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    assert [row[-2:] for row in cells[2:]] == [["ratio >= 0.95", "NO"], ["<= 1,000", "NO"], ["", ""]]
    assert cells[3][:2] == ["replay/bytes/1", "12,345"]


def test_unknown_parts_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        benchmarks.main(["treee"])
    assert "treee" in capsys.readouterr().err


def test_figures_go_between_their_marks() -> None:
    page = "a\n<!-- figures: begin -->\nold\n<!-- figures: end -->\nz\n"
    once = fill(page, "new")
    assert once == "a\n<!-- figures: begin -->\n\nnew\n\n<!-- figures: end -->\nz\n"
    assert fill(once, "new") == once
    assert BEGIN_LOST not in page
    with pytest.raises(ValueError, match="no place for figures"):
        fill(page.replace("figures: end", BEGIN_LOST), "new")


BEGIN_LOST = "figures: elsewhere"


def test_the_project_page_has_a_place_for_figures() -> None:
    page = Path(__file__).parents[2] / "docs" / "experiments" / "performance-figures.md"
    assert "new figures" in fill(page.read_text(), "new figures")


def test_effort_can_be_changed_in_part() -> None:
    assert replace(SMALL, repeats=2).batch_sizes == SMALL.batch_sizes
