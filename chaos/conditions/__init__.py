"""Conditions of real machines: each is set up, the program is started in it as a user starts it, its answer compared.

`python -m chaos conditions` tries all, `python -m chaos.conditions WORD` those with this word in their name. A
condition is a function of a `Place`, under a sentence that says which answer is right; the sentence was written before
the condition was first tried. Whatever the condition, nothing may hang, no traceback may be shown, nothing may be lost.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Sequence
from pathlib import Path

from chaos.conditions.place import CONDITIONS, Condition, Place, Unexpected, Unfit
from chaos.report import Outcome

GROUPS = ("folders", "terminals", "limits", "side_files", "environments", "clusters")


def all_conditions() -> list[Condition]:
    """The conditions of every group, in order."""
    for group in GROUPS:
        importlib.import_module(f"chaos.conditions.{group}")
    return sorted(CONDITIONS, key=lambda one: GROUPS.index(one.group))


def conditions(tries: int, folder: Path) -> Iterator[Outcome]:
    """The first `tries` conditions of each group."""
    found = all_conditions()
    yield from outcomes([one for group in GROUPS for one in [c for c in found if c.group == group][:tries]], folder)


def outcomes(chosen: Sequence[Condition], folder: Path) -> Iterator[Outcome]:
    """One for each; what they need is made below `folder`."""
    for condition in chosen:
        place = folder / f"{condition.group}-{condition.function.__name__}"
        place.mkdir()
        yield outcome(condition, Place(place, folder / "trained"))


def outcome(condition: Condition, place: Place) -> Outcome:
    """Try it. What a machine cannot set up (it needs root, say) is a bar missed, with the reason."""
    seen = ""
    try:
        condition.function(place)
    except Unexpected as error:
        seen = str(error)
    except Unfit as error:
        seen = f"not tried: {error}"
    finally:
        place.close()
    name = f"{condition.group.replace('_', ' ')}: {condition.name}"
    return Outcome(name, condition.expected, 1, bool(seen), not seen, {}, (seen,) if seen else ())
