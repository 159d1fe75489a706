"""Python's, NumPy's and torch's global generators. Environments that draw from them repeat like all others."""

from __future__ import annotations

import contextlib
import random
import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch


def seed_generators(*key: int | str) -> None:
    """Seed the global generators of this process. key: says whose they are, such as a run's seed and an actor's number.

    Nothing of this project draws from them; some environments do, in spite of the seed that `reset` gives them.
    """
    words = [int.from_bytes(part.encode()) if isinstance(part, str) else part for part in key]
    python, numpy, of_torch = np.random.SeedSequence(words).generate_state(3).tolist()
    random.seed(python)
    np.random.seed(numpy)  # noqa: NPY002 - the very generator that such environments use
    torch.manual_seed(of_torch)


@contextlib.contextmanager
def generators_kept() -> Iterator[None]:
    """The global generators are at the end of the block as they were at its beginning.

    Not in another thread than the main one: the threads beside it have drawn from them meanwhile, and would draw the
    same numbers again.
    """
    outside = _state()
    try:
        yield
    finally:
        if threading.current_thread() is threading.main_thread():
            _set_state(outside)


class OwnChance:
    """Global generators for one activity alone; a context manager that puts them in place while it goes on.

    So an evaluation repeats whatever was played before it in the same process, and leaves self-play as it was.
    """

    def __init__(self, *key: int | str) -> None:
        """key: as of `seed_generators`."""
        outside = _state()
        seed_generators(*key)
        self._inside, self._outside = _state(), outside
        _set_state(outside)

    def __enter__(self) -> None:
        self._outside = _state()
        _set_state(self._inside)

    def __exit__(self, *error: object) -> None:
        self._inside = _state()
        _set_state(self._outside)


def _state() -> tuple[Any, Any, torch.Tensor]:
    return random.getstate(), np.random.get_state(), torch.get_rng_state()  # noqa: NPY002 - as above


def _set_state(state: tuple[Any, Any, torch.Tensor]) -> None:
    python, numpy, of_torch = state
    random.setstate(python)
    np.random.set_state(numpy)  # noqa: NPY002 - as above
    torch.set_rng_state(of_torch)
