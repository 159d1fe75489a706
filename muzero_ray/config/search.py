"""Settings of the search: those of every kind, and a class for each kind with those of its own."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt, model_validator

from muzero_ray.config.base import Fraction, Simulations
from muzero_ray.config.kinds import KindConfig, Kinds


class SearchConfig(KindConfig):
    """Monte-Carlo tree search."""

    kinds: ClassVar[Kinds[SearchConfig]] = Kinds("search", default="gumbel")
    exploration: ClassVar[frozenset[str]] = frozenset()
    """Settings that only self-play reads; all others count in the protocol of a score."""

    kind: str
    """`gumbel` improves the policy even at few simulations; `puct` is the original MuZero search."""
    simulations: Simulations = 16
    """Network evaluations per move."""
    value_bounds: tuple[float, float] | None = None
    """Known range of returns (boards: [-1, 1]); otherwise min-max of each tree."""
    min_value_range: NonNegativeFloat = 0.0
    """A range of Q below this (env units) is not stretched to [0, 1]: noise does not look like an advantage."""

    @model_validator(mode="after")
    def _bounds_in_order(self) -> SearchConfig:
        if self.value_bounds is not None and self.value_bounds[0] >= self.value_bounds[1]:
            raise ValueError(f"value_bounds={self.value_bounds}: the lower bound must be below the upper. Swap them")
        return self

    def overridden(self, **values: object) -> Self:
        """A copy with these values, already validated, but for those that are None or that this kind does not have."""
        return super().overridden(**{name: value for name, value in values.items() if name in type(self).model_fields})

    def temperature_at(self, progress: float) -> float:  # noqa: ARG002 (for kinds that have one)
        """The temperature of action sampling in self-play, after this share of training in [0, 1]."""
        return 0.0

    @property
    def greedy_from(self) -> int | None:
        """The move of a game from which on self-play samples no action."""
        return None


class PuctConfig(SearchConfig):
    """The original MuZero search."""

    exploration: ClassVar[frozenset[str]] = frozenset(
        {"dirichlet_alpha", "noise_fraction", "temperature", "temperature_moves"}
    )

    kind: Literal["puct"] = "puct"
    """`gumbel` improves the policy even at few simulations; `puct` is the original MuZero search."""
    pb_c_base: PositiveFloat = 19652.0
    """Exploration grows with log((N + base + 1) / base) of the parent's visits N (puct)."""
    pb_c_init: PositiveFloat = 1.25
    """Weight of prior against Q while visits are few (puct)."""
    dirichlet_alpha: PositiveFloat = 0.3
    """Root exploration noise (puct), over legal actions."""
    noise_fraction: Fraction = 0.25
    """Share of the noise in the root prior (puct)."""
    unvisited: Literal["zero", "parent", "completed"] = "parent"
    """Q of unvisited children (puct): 0, the parent's value, or the mixed value of visited siblings and the parent."""
    temperature: tuple[NonNegativeFloat, NonNegativeFloat, NonNegativeFloat] = (1.0, 0.5, 0.25)
    """Action sampling temperature (puct) before 50 %, before 75 % and after 75 % of training."""
    temperature_moves: PositiveInt | None = None
    """Play greedily (puct) from this move of a game on (boards)."""

    def temperature_at(self, progress: float) -> float:
        """See SearchConfig."""
        first, second, third = self.temperature
        return first if progress < 0.5 else second if progress < 0.75 else third

    @property
    def greedy_from(self) -> int | None:
        """See SearchConfig."""
        return self.temperature_moves


class GumbelConfig(SearchConfig):
    """A policy improvement even at few simulations."""

    kind: Literal["gumbel"] = "gumbel"
    """`gumbel` improves the policy even at few simulations; `puct` is the original MuZero search."""
    considered_actions: Annotated[int, Field(ge=2)] = 16
    """Gumbel-top-m root actions that sequential halving starts from (gumbel)."""
    c_visit: NonNegativeFloat = 50.0
    """Offset of the visits in sigma (gumbel), see c_scale: what Q counts for before any visit."""
    c_scale: PositiveFloat = 1.0
    """sigma(q) = (c_visit + max visits) * c_scale * q (gumbel): 1.0 for boards, 0.1 for Atari."""


SearchConfig.kinds.add(PuctConfig, "muzero_ray.search.policies:PuctSearch")
SearchConfig.kinds.add(GumbelConfig, "muzero_ray.search.policies:GumbelSearch")
