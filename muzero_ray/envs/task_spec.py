"""What an environment says of a task, as the parts of a run are given it."""

from __future__ import annotations

from dataclasses import dataclass

from muzero_ray.config.schema import EnvConfig
from muzero_ray.config.validation import shown
from muzero_ray.types import EnvSpec


@dataclass(frozen=True)
class TaskSpec:
    """What the parts must agree on, read once from a real environment.

    spec: of a single frame. observation_shape: stacked, as networks see it, `(stack * C, ...)`.
    """

    spec: EnvSpec
    observation_shape: tuple[int, ...]

    @staticmethod
    def of(spec: EnvSpec, frame_stack: int) -> TaskSpec:
        """The task of an environment whose frames a network sees `frame_stack` at a time."""
        channels, *rest = spec.observation_shape
        return TaskSpec(spec, (channels * frame_stack, *rest))

    def describe(self, env: EnvConfig) -> str:
        """Which environment it is and what is seen of it, for people."""
        given = "".join(f" {key}={shown(value)}" for key, value in env.kwargs.items())
        stack = f"{env.frame_stack} frames of " if env.frame_stack > 1 else ""
        return f"environment {env.id}{given and f' with{given}'}: observation: {stack}{self.spec.seen}"
