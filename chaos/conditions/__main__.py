"""`python -m chaos.conditions WORD [WORD ...]`: the conditions whose group or function has one of these words in it."""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

from chaos.__main__ import ENVIRONMENT
from chaos.conditions import all_conditions, outcomes
from chaos.hangups import hear_hangups


def main(words: list[str]) -> int:
    """Returns 1 if an answer was not the expected one."""
    os.environ.update(ENVIRONMENT)
    hear_hangups()
    chosen = [one for one in all_conditions() if any(word in f"{one.group} {one.function.__name__}" for word in words)]
    bad = 0
    with tempfile.TemporaryDirectory(prefix="chaos-") as folder:
        for outcome in outcomes(chosen, Path(folder)):
            print("yes" if outcome.met else "NO ", outcome.fault, *outcome.notes, sep=" | ", flush=True)
            bad += not outcome.met
    print(f"{len(chosen)} conditions, {bad} with another answer than the expected one")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
