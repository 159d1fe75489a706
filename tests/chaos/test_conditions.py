"""The conditions' judge: what it takes for a right answer, and what not."""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path

import pytest

from chaos.conditions import GROUPS, Condition, all_conditions, outcome
from chaos.conditions.place import Ended, Place, Unexpected, Unfit
from chaos.report import Outcome


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path, tmp_path / "trained")


def judged(place: Place, function: object) -> Outcome:
    return outcome(Condition("folders", "a name", "an answer", function), place)  # type: ignore[arg-type]


def test_there_are_enough_of_each_group_and_each_is_named_once() -> None:
    found = all_conditions()
    groups = Counter(one.group for one in found)
    assert set(groups) == set(GROUPS)
    assert min(groups.values()) >= 8
    assert len(found) >= 60
    assert len({(one.group, one.name) for one in found}) == len(found)
    assert len({(one.group, one.function.__name__) for one in found}) == len(found)
    assert all(one.expected for one in found)


def test_the_page_lists_them_all_with_the_right_answers() -> None:
    page = (Path(__file__).parents[2] / "docs" / "experiments" / "conditions.md").read_text()
    rows = [line.strip("| ").split(" | ") for line in page.splitlines() if line.startswith("| ")][1:]
    told = [(group.replace(" ", "_"), name.replace(r"\|", "|"), expected) for group, name, expected, _ in rows]
    assert told == [(one.group, one.name, one.expected) for one in all_conditions()]
    assert f"under {len(told)} conditions" in page


@pytest.mark.parametrize(
    ("ended", "problem"),
    [
        (Ended(0, "all is well", ""), None),
        (Ended(1, "all is well", ""), "exit code 1, not 0"),
        (Ended(None, "all is well", ""), "it hung"),
        (Ended(0, "nothing", ""), "it does not say 'well'"),
        (Ended(0, "", "all is\nwell"), None),
        (Ended(0, "all is well", "Traceback (most recent call last):"), "a traceback"),
        (Ended(0, "all is well, owned", ""), "it says 'owned'"),
    ],
)
def test_an_answer_is_right_only_if_all_of_it_is(place: Place, ended: Ended, problem: str | None) -> None:
    if problem is None:
        assert place.expect(ended, "well", never="owned") is ended
        return
    with pytest.raises(Unexpected, match=problem):
        place.expect(ended, "well", never="owned")


def test_a_command_that_hangs_is_killed_with_its_children(place: Place) -> None:
    script = "import subprocess, sys; subprocess.run([sys.executable, '-c', 'import time; time.sleep(10**6)'])"
    assert place.call([sys.executable, "-c", script], seconds=1.0).code is None


def test_another_answer_is_a_bar_missed_and_so_is_what_cannot_be_tried(place: Place) -> None:
    def wrong(_: Place) -> None:
        raise Unexpected("it hung")

    def impossible(_: Place) -> None:
        raise Unfit("it needs root")

    assert judged(place, lambda _: None).met
    for function, note in ((wrong, "it hung"), (impossible, "not tried: it needs root")):
        missed = judged(place, function)
        assert (missed.met, missed.lost, missed.notes) == (False, 1, (note,))
        assert (missed.fault, missed.bar) == ("folders: a name", "an answer")


def test_what_was_started_ends_with_the_condition(place: Place) -> None:
    programs = []

    def starts(here: Place) -> None:
        programs.append(here.started(sys.executable, "-c", "import time; time.sleep(10**6)"))

    assert judged(place, starts).met
    assert programs[0].code is not None
