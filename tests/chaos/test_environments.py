"""What is asked of a run whose environment breaks, and one such run."""

from __future__ import annotations

from pathlib import Path

import pytest

from chaos.environments import FAULTS, RAISED, SLOW_LEAK, install, judge, run_with

PLACE = "environment chaos_envs:Fault-v0 (seed 5, step 3)"
LAST = f"error: {PLACE}: reward is not finite: expected a finite number, got nan. That was fault number 6 in a row"


@pytest.mark.parametrize(
    ("fault", "code", "said", "printed", "problem"),
    [
        ("reward NaN", 3, LAST, "", None),
        ("reward NaN", 1, LAST, "", "ended with 1, not 3"),
        ("reward NaN", None, "", "", "ended with None"),
        ("reward NaN", 3, "error: it broke", "", "are not named"),
        ("reward NaN", 3, LAST.replace("step 3", "step 4"), "", "step 4 is named"),
        ("reset raises", 3, LAST.replace("step 3", "step 0"), "", None),
        ("step raises", 3, f"error: {PLACE}", "", "nothing was ever replaced"),
        ("segfault in step", 3, f"error: {PLACE}", f"self_play 0 lost ({PLACE}); replacing it\n", None),
        (SLOW_LEAK, 0, "", f"self_play 0 lost ({PLACE}); replacing it\n", None),
        (SLOW_LEAK, 0, "", "", "are not named"),
        (SLOW_LEAK, 3, "", PLACE, "ended with 3, not 0"),
    ],
)
def test_a_run_is_judged_by_its_code_and_its_words(
    fault: str, code: int | None, said: str, printed: str, problem: str | None
) -> None:
    found = judge(fault, code, said, printed).problem
    assert found is None if problem is None else problem in str(found)


def test_there_are_more_than_twelve() -> None:
    assert len(set(FAULTS)) == len(FAULTS) >= 12
    assert len(RAISED) >= 8


def test_one_of_them_in_full(tmp_path: Path) -> None:
    seen = run_with("reward None", tmp_path, install(tmp_path))
    assert seen.problem is None
    assert seen.code == 3
    assert seen.replaced == 5
