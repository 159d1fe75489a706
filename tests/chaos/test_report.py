"""Rows, their table and JSON: what is missed is shown as missed."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from chaos import __main__ as chaos
from chaos.report import ROOT, Outcome, as_json, largest, median, perform, reported, table


def two_faults(tries: int, folder: Path) -> Iterator[Outcome]:
    assert list(folder.iterdir()) == []
    yield Outcome("flood", "dry in 3 s", tries, 0, True, {"dry s": 2.25, "pumps": 1_200})
    yield Outcome("fire", "0 burnt", tries, 2, False, {"out s": float("inf")}, ("the door", "the roof"))


def breaks_down(tries: int, folder: Path) -> Iterator[Outcome]:
    yield next(two_faults(tries, folder))
    raise OSError("no water")


def test_a_row_says_everything_and_is_valid_json(tmp_path: Path) -> None:
    rows = json.loads(json.dumps(as_json(perform("both", two_faults, 3, tmp_path)), allow_nan=False))
    assert [(row["fault"], row["tries"], row["lost"], row["met"]) for row in rows] == [
        ("flood", 3, 0, True),
        ("fire", 3, 2, False),
    ]
    for row in rows:
        assert row["date"].startswith("20")
        assert row["machine"]["cores"] >= 1
        assert row["commit"]
        assert row["seconds"] >= 0.0
    assert rows[1]["figures"] == {"out s": None}
    *lines, note, other = table(rows).splitlines()
    assert lines[2] == "| flood | 3 | 0 | dry s 2.25, pumps 1,200 | dry in 3 s | yes |"
    assert lines[3] == "| fire | 3 | 2 | out s none | 0 burnt | NO |"
    assert (note, other) == ("- fire: the door", "- fire: the roof")


def test_an_experiment_that_breaks_down_is_a_bar_missed(tmp_path: Path) -> None:
    flood, broken = (row.outcome for row in perform("weather", breaks_down, 1, tmp_path))
    assert flood.met
    assert not broken.met
    assert broken.fault == "weather"
    assert "OSError: no water" in broken.notes[0]


def test_nothing_measured_meets_no_bar() -> None:
    assert not median([]) <= 10.0
    assert not largest([]) <= 10.0
    assert (median([3.0, 1.0, 2.0]), largest([3.0, 1.0, 2.0])) == (2.0, 3.0)


@pytest.mark.parametrize("name", list(chaos.FAULTS))
def test_every_fault_has_an_experiment(name: str) -> None:
    fault = chaos.FAULTS[name]
    module, _, function = fault.function.partition(":")
    spec = importlib.util.find_spec(f"chaos.{module}")
    assert spec is not None
    assert spec.origin is not None
    source = Path(spec.origin).read_text()
    assert f"def {function}(tries: int, folder: Path) -> Iterator[Outcome]:" in source
    assert 1 <= fault.quick <= fault.full


def test_the_command_tells_a_missed_bar_and_joins_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(
        chaos, "FAULTS", {"both": chaos.Fault("none:none", 20, 1), "no": chaos.Fault("none:none", 9, 2)}
    )
    monkeypatch.setattr(chaos, "experiment", lambda _: two_faults)
    monkeypatch.setattr(chaos, "ENVIRONMENT", {})
    file = tmp_path / "new" / "rows.json"
    assert chaos.main(["both", "--quick", "--json", str(file)]) == 1
    assert [row["tries"] for row in json.loads(file.read_text())] == [1, 1]
    assert chaos.main(["--tries", "4", "--json", str(file)]) == 1
    assert [row["tries"] for row in json.loads(file.read_text())] == [4, 4, 4, 4]
    capsys.readouterr()
    assert chaos.main(["--table", str(file), str(file)]) == 0
    assert capsys.readouterr().out.count("| fire |") == 4
    with pytest.raises(SystemExit):
        chaos.main(["volcano"])


def test_its_command_starts_before_ray_is_imported() -> None:
    """Whether a token is asked for is decided when Ray is first imported."""
    code = "import sys; import chaos.__main__; assert 'ray' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


def test_a_program_reports_its_outcomes_and_that_it_broke_down() -> None:
    script = (
        "from chaos.report import Outcome, report\n"
        "report(iter([Outcome('flood', 'dry', 3, 1, False, {'m': 2.5}, ['wet'])]))\n"
        "raise SystemExit(4)"
    )
    outcomes = reported([sys.executable, "-c", script])
    assert next(outcomes) == Outcome("flood", "dry", 3, 1, False, {"m": 2.5}, ["wet"])
    with pytest.raises(RuntimeError, match="ended with 4"):
        next(outcomes)
