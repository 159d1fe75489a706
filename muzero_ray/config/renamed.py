"""Settings that once had another name. The old names are still read, from files and from the command line."""

from __future__ import annotations

Setting = tuple[str, ...]
"""A section and a name in it: `("learner", "cpus")`."""

IN_VERSION_2: dict[Setting, Setting] = {
    ("run", "training_steps"): ("run", "learner_steps"),
    ("actors", "learner_cpus"): ("learner", "cpus"),
    ("actors", "learner_gpus"): ("learner", "gpus"),
    ("actors", "learner_threads"): ("learner", "threads"),
    ("reanalyze", "share"): ("reanalyze", "ratio"),
}
"""Old name -> new name."""

RENAMED: dict[Setting, Setting] = {**IN_VERSION_2}
"""Every old name -> the name of today."""


def given_twice(old: str, new: str) -> str:
    """What is said where a setting has two values."""
    return f"{old} and {new} are the same setting, and both are given. Remove one"


def renaming(old: str, new: str) -> str:
    """How a change of name is told."""
    return f"{old} is now called {new}"
