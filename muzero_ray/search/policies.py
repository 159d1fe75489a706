"""`make_search`: the search a configuration asks for, as one function of a root and a model."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from muzero_ray.config.schema import Config, SearchConfig
from muzero_ray.envs.task_spec import TaskSpec
from muzero_ray.search.search import RecurrentFunction, gumbel_search, puct_search
from muzero_ray.search.workspace import WorkspaceCache
from muzero_ray.types import BoolArray, FloatArray, NetworkOutput, SearchResult


@dataclass(frozen=True)
class SearchFunction:
    """A configured search. It keeps its trees' memory from call to call: use one per thread.

    discount: signed, negative for two players.
    """

    config: SearchConfig
    discount: float
    _workspaces: WorkspaceCache = field(default_factory=WorkspaceCache, repr=False, compare=False)

    def __call__(
        self,
        root: NetworkOutput,
        recurrent_fn: RecurrentFunction,
        legal: BoolArray,
        rng: np.random.Generator,
        *,
        explore: bool,
        temperature: FloatArray,
    ) -> SearchResult:
        """Searches `B` roots. explore: self-play noise; False is deterministic. temperature: `[B]`, PUCT only."""
        cfg = self.config
        if cfg.kind == "gumbel":
            return gumbel_search(
                root,
                recurrent_fn,
                legal=legal,
                simulations=cfg.simulations,
                discount=self.discount,
                rng=rng,
                noise=explore,
                considered_actions=cfg.considered_actions,
                c_visit=cfg.c_visit,
                c_scale=cfg.c_scale,
                value_bounds=cfg.value_bounds,
                min_value_range=cfg.min_value_range,
                workspaces=self._workspaces,
            )
        return puct_search(
            root,
            recurrent_fn,
            legal=legal,
            simulations=cfg.simulations,
            discount=self.discount,
            rng=rng,
            noise=explore,
            dirichlet_alpha=cfg.dirichlet_alpha,
            noise_fraction=cfg.noise_fraction,
            pb_c_base=cfg.pb_c_base,
            pb_c_init=cfg.pb_c_init,
            unvisited=cfg.unvisited,
            value_bounds=cfg.value_bounds,
            min_value_range=cfg.min_value_range,
            temperature=temperature,
            workspaces=self._workspaces,
        )


def make_search(cfg: SearchConfig, *, discount: float, num_players: int) -> SearchFunction:
    """discount: gamma per agent step, positive: the sign follows `num_players`."""
    signed = -discount if num_players == 2 else discount
    return SearchFunction(cfg, signed)


def build_search(
    config: Config, task: TaskSpec, *, simulations: int | None = None, c_scale: float | None = None
) -> SearchFunction:
    """The configured search; the arguments override its settings of these names (evaluation, reanalyze)."""
    search = config.search.overridden(simulations=simulations, c_scale=c_scale)
    return make_search(search, discount=config.learner.discount, num_players=task.spec.num_players)
