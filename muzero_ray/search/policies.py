"""From settings to a search: one function of a root and a model."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

import numpy as np

from muzero_ray.config.schema import Config, GumbelConfig, PuctConfig, SearchConfig
from muzero_ray.envs.task_spec import TaskSpec
from muzero_ray.search.search import Model, gumbel_search, puct_search
from muzero_ray.search.workspace import Workspace, WorkspaceCache
from muzero_ray.types import BoolArray, FloatArray, NetworkOutput, SearchResult


class SearchFunction(Protocol):
    """A configured search, as a builder returns it. It may keep memory from call to call: use one per thread."""

    def __call__(
        self,
        root: NetworkOutput,
        model: Model,
        legal: BoolArray,
        rng: np.random.Generator,
        *,
        explore: bool,
        temperature: FloatArray,
    ) -> SearchResult:
        """Searches `B` roots. legal: `[B, A]`. explore: self-play noise; False is deterministic. temperature: `[B]`, of
        searches that sample their action."""
        ...


@runtime_checkable
class TreeSearch(Protocol):
    """A search whose trees can be looked into."""

    def newest(self, root: NetworkOutput) -> Workspace:
        """The trees of the newest search, which began at `root`."""
        ...


@dataclass(frozen=True)
class PuctSearch:
    """The builder of `puct`. It keeps the memory of its trees. discount: signed, negative for two players."""

    settings: PuctConfig
    discount: float
    _workspaces: WorkspaceCache = field(default_factory=WorkspaceCache, repr=False, compare=False)

    def newest(self, root: NetworkOutput) -> Workspace:
        """See TreeSearch."""
        return _newest(self._workspaces, root, self.settings.simulations)

    def __call__(
        self,
        root: NetworkOutput,
        model: Model,
        legal: BoolArray,
        rng: np.random.Generator,
        *,
        explore: bool,
        temperature: FloatArray,
    ) -> SearchResult:
        """See SearchFunction."""
        return puct_search(
            root,
            model,
            self.settings,
            legal=legal,
            discount=self.discount,
            rng=rng,
            noise=explore,
            temperature=temperature,
            workspaces=self._workspaces,
        )


@dataclass(frozen=True)
class GumbelSearch:
    """The builder of `gumbel`, see PuctSearch. Its action is that of sequential halving, at any temperature."""

    settings: GumbelConfig
    discount: float
    _workspaces: WorkspaceCache = field(default_factory=WorkspaceCache, repr=False, compare=False)

    def newest(self, root: NetworkOutput) -> Workspace:
        """See TreeSearch."""
        return _newest(self._workspaces, root, self.settings.simulations)

    def __call__(
        self,
        root: NetworkOutput,
        model: Model,
        legal: BoolArray,
        rng: np.random.Generator,
        *,
        explore: bool,
        temperature: FloatArray,  # noqa: ARG002
    ) -> SearchResult:
        """See SearchFunction."""
        return gumbel_search(
            root,
            model,
            self.settings,
            legal=legal,
            discount=self.discount,
            rng=rng,
            noise=explore,
            workspaces=self._workspaces,
        )


def _newest(workspaces: WorkspaceCache, root: NetworkOutput, simulations: int) -> Workspace:
    batch, num_actions = root.policy_logits.shape
    return workspaces.get(batch, simulations + 1, num_actions)


def signed_discount(discount: float, num_players: int) -> float:
    """The value of a child is its opponent's where two play."""
    return -discount if num_players == 2 else discount


def make_search(settings: SearchConfig, *, discount: float, num_players: int) -> SearchFunction:
    """discount: gamma per agent step, positive: the sign follows `num_players`."""
    build = SearchConfig.kinds.builder(settings.kind)
    search: SearchFunction = build(settings, signed_discount(discount, num_players))
    return search


def build_search(
    config: Config, task: TaskSpec, *, simulations: int | None = None, c_scale: float | None = None
) -> SearchFunction:
    """The configured search; the arguments override its settings of these names (evaluation, reanalyze)."""
    search = config.search.overridden(simulations=simulations, c_scale=c_scale)
    return make_search(search, discount=config.learner.discount, num_players=task.spec.num_players)
