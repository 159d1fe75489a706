"""Engines are compared at positions of real play."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from benchmarks.engine_quality import collect, quality, root_policies
from benchmarks.engines import MLP_ENGINES
from muzero_ray.control.probe import probe
from muzero_ray.inference.torch_engine import TorchEngine
from muzero_ray.networks.build import make_network
from tests.benchmarks.rows import SMALL, check
from tests.small_runs import run_serial, small_config


def test_a_run_is_played_and_every_engine_compared(tmp_path: Path) -> None:
    config = small_config(run={"learner_steps": 10, "log_steps": 5})
    assert run_serial(config, tmp_path / "run")
    rows = check(list(quality(tmp_path / "run", SMALL)), may_be_zero=("quality",))
    assert len(rows) == 2 * (len(MLP_ENGINES) - 1)
    row = rows["quality/CartPole-v1/S4/compiled-fp32"]
    assert row.baseline == "one visit moved"
    assert row.figure <= 0.02
    assert row.figure == pytest.approx(np.mean(row.samples))


@pytest.mark.parametrize("name", ["cartpole", "tictactoe"])
def test_positions_are_met_in_play_and_other_weights_are_seen_to_differ(name: str) -> None:
    config = small_config(name, search={"kind": "puct", "simulations": 12})
    task = probe(config)

    def engine(seed: int) -> TorchEngine:
        network = make_network(
            config.network,
            observation_shape=task.observation_shape,
            num_actions=task.spec.num_actions,
            consistency=False,
            seed=seed,
        )
        # Heads of a fresh network answer 0 to everything, whatever their seed.
        rng = np.random.default_rng(seed)
        made = TorchEngine(network)
        made.load(rng.normal(scale=0.2, size=sum(t.numel() for t in network.state_dict().values())).astype(np.float32))
        return made

    one, other = engine(0), engine(1)
    positions = collect(config, task, one, 30)
    assert positions.observations.shape == (30, *task.observation_shape)
    assert len(np.unique(positions.observations, axis=0)) >= 10
    policies = root_policies(config, task, one, positions)
    np.testing.assert_allclose(policies.sum(axis=1), 1.0, rtol=1e-5)
    assert not policies[~positions.legal].any()
    np.testing.assert_array_equal(policies, root_policies(config, task, one, positions))
    assert np.abs(policies - root_policies(config, task, other, positions)).sum() > 1.0
