"""What an environment shows and takes in its own spaces, and what the network reads and chooses of it."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np

from muzero_ray.types import Array, BoolArray, EnvSpec


class OwnSpaces(Protocol):
    """Translates for an agent that acts in a loop of somebody's own, without an adapter around the environment."""

    def frame(self, observation: Any) -> Array:
        """One observation of the environment's own space as the network reads it. ValueError if it is not of it."""
        ...

    def legal(self, observation: Any) -> BoolArray | None:
        """Legal actions `[A]`, as far as the observation itself says them; None if it does not."""
        ...

    def action(self, index: int) -> Any:
        """An action of the environment's own space; index: in [0, A)."""
        ...


class FrameSpaces:
    """For an adapter that names none, as in a user's package: observations are its frames, actions its own."""

    def __init__(self, spec: EnvSpec) -> None:
        self._spec = spec

    def frame(self, observation: Any) -> Array:
        """See OwnSpaces."""
        raw, spec = np.asarray(observation), self._spec
        if raw.shape != spec.observation_shape or not np.can_cast(raw.dtype, spec.observation_dtype, "same_kind"):
            raise ValueError(
                f"observation of {spec.name}: expected {spec.observation_dtype} {spec.observation_shape}, got "
                f"{raw.dtype} {raw.shape}"
            )
        return raw.astype(spec.observation_dtype)

    def legal(self, observation: Any) -> None:
        """See OwnSpaces."""

    def action(self, index: int) -> int:
        """See OwnSpaces."""
        return index
