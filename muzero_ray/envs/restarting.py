"""An environment that is replaced when it breaks; too many faults in a row are an error."""

from __future__ import annotations

import contextlib
from collections.abc import Callable

from muzero_ray.envs.environment import Environment
from muzero_ray.errors import EnvironmentFault

MAX_FAULTS = 5
"""A run survives this many faults in a row of one environment and its replacements; the next one ends it."""


class RestartingEnvironment:
    """An environment that is replaced when it breaks. current: the one in use.

    make: makes a new one; None: the first fault is raised. The game of one that broke is lost; nothing of it is kept.
    """

    def __init__(self, environment: Environment, make: Callable[[], Environment] | None) -> None:
        self.current = environment
        self._make = make
        self.faults_in_a_row = 0
        """Faults since it was last of use."""

    def replace(self, fault: EnvironmentFault) -> None:
        """Make a new environment in place of one that broke. Raises the `fault` if there were too many in a row."""
        self.faults_in_a_row += 1
        if self._make is None:
            raise fault
        if self.faults_in_a_row > MAX_FAULTS:
            raise EnvironmentFault(f"{fault}. That was fault number {self.faults_in_a_row} in a row") from fault
        with contextlib.suppress(Exception):  # it is broken, so an error here says nothing new
            self.current.close()
        self.current = self._make()

    def reopen(self) -> None:
        """Make a new environment in place of one that was closed."""
        if self._make is None:
            raise ValueError("nothing here makes environments")
        self.current = self._make()

    def was_useful(self) -> None:
        """It has played a game, or a segment of one: earlier faults no longer count."""
        self.faults_in_a_row = 0
