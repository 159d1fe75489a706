"""What is done about an environment that breaks: a new one is made, and too often in a row is an error."""

from __future__ import annotations

import contextlib
from collections.abc import Callable

from muzero_ray.envs.environment import Environment
from muzero_ray.errors import EnvironmentFault

MAX_FAULTS = 5
"""Faults of one environment and its replacements, nothing useful in between, that are survived: one more is the end."""


class Renewal:
    """The place of an environment: whoever holds it now, and how often one there broke.

    make: makes a new one; None: the first fault is the end. Its game is lost, and nothing of it may be kept.
    """

    def __init__(self, environment: Environment, make: Callable[[], Environment] | None) -> None:
        self.environment = environment
        self._make = make
        self.in_a_row = 0
        """Faults since it was last of use."""

    def broke(self, fault: EnvironmentFault) -> None:
        """Put a new environment in the place of one that broke. Raises the `fault` if it is one too many."""
        self.in_a_row += 1
        if self._make is None:
            raise fault
        if self.in_a_row > MAX_FAULTS:
            raise EnvironmentFault(f"{fault}. It was the fault number {self.in_a_row} in a row") from fault
        with contextlib.suppress(Exception):  # it is broken: what it says to that is no news
            self.environment.close()
        self.environment = self._make()

    def renew(self) -> None:
        """Put a new environment in the place of one that was closed."""
        if self._make is None:
            raise ValueError("nothing here makes environments")
        self.environment = self._make()

    def was_useful(self) -> None:
        """A game, or a segment of one, came of it: what happened before is over."""
        self.in_a_row = 0
