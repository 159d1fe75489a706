"""An environment that is replaced when it breaks; too many faults in a row are an error."""

from __future__ import annotations

import contextlib
from collections.abc import Callable

from muzero_ray.envs.environment import Environment
from muzero_ray.errors import EnvironmentFault

MAX_FAULTS = 5
"""A run survives this many faults in a row of one environment and its replacements; the next one ends the run."""


class RestartingEnvironment:
    """Holds the environment in use as `current`, and makes a new one when it breaks. The game in play is then lost."""

    def __init__(self, environment: Environment, make: Callable[[], Environment] | None) -> None:
        """make: makes a replacement; if None, the first fault is raised."""
        self.current = environment
        self._make = make
        self.faults_in_a_row = 0
        """Faults since the last call of `forget_faults`."""

    def replace(self, fault: EnvironmentFault) -> None:
        """Replace the environment, which raised `fault`. Raises EnvironmentFault after too many faults in a row."""
        self.faults_in_a_row += 1
        if self._make is None:
            raise fault
        if self.faults_in_a_row > MAX_FAULTS:
            raise EnvironmentFault(f"{fault}. That was fault number {self.faults_in_a_row} in a row") from fault
        with contextlib.suppress(Exception):  # it is broken, so an error here says nothing new
            self.current.close()
        self.current = self._make()

    def reopen(self) -> None:
        """Make a new environment after the last one was closed on purpose."""
        if self._make is None:
            raise ValueError("make=None: no environment can be made again. Pass a function that makes one")
        self.current = self._make()

    def forget_faults(self) -> None:
        """Call it after each finished game or segment: earlier faults no longer count."""
        self.faults_in_a_row = 0
