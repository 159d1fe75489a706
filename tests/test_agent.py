"""Agent: acting in a loop of one's own equals what evaluations play, and needs nothing of what trained it."""

from __future__ import annotations

import json
import shutil
from functools import cache
from pathlib import Path

import gymnasium
import numpy as np
import pytest

from muzero_ray.agent import Agent
from muzero_ray.cli.finished_runs import trained_evaluator
from muzero_ray.config.schema import Config
from muzero_ray.control.probe import probe
from muzero_ray.envs.own_spaces import FrameSpaces
from muzero_ray.envs.registry import make_environment
from muzero_ray.errors import CheckpointError, ConfigError
from muzero_ray.launch import main
from muzero_ray.runs.checkpoint import save_checkpoint
from muzero_ray.runs.run import Run
from muzero_ray.runs.run_config import CONFIG_COPY
from muzero_ray.training.build import build_learner
from muzero_ray.types import Array, EnvSpec
from tests.small_runs import small_config


@cache
def some_weights(task: str, seed: int) -> dict[str, Array]:
    """As a checkpoint holds them. The last layers, which begin at 0, are drawn at random: actions must differ."""
    config = small_config(task, run={"seed": seed})
    arrays, _ = build_learner(config, probe(config)).state()
    rng = np.random.default_rng(seed)
    model = {name: array for name, array in arrays.items() if name.startswith("model.")}
    return {
        name: rng.normal(0, 0.5, array.shape).astype(np.float32) if array.size and not array.any() else array
        for name, array in model.items()
    }


def make_run(
    folder: Path, task: str = "cartpole", scores: tuple[float | None, ...] = (None,), **sections: object
) -> Run:
    """A run that was not trained: checkpoint 10 has one set of weights, 20 another, ..."""
    run, config = Run(folder), small_config(task, **sections)  # type: ignore[arg-type]
    folder.mkdir()
    run.write_config(config)
    for number, score in enumerate(scores, start=1):
        save_checkpoint(
            run.checkpoints_folder,
            10 * number,
            model=some_weights(task, number),
            optimizer={"optimizer.none": np.zeros(1, np.float32)},
            state={},
            extra_files={CONFIG_COPY: run.config_file.read_bytes()},
            best=score,
        )
    return run


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return make_run(tmp_path_factory.mktemp("runs") / "cartpole", scores=(3.0, 1.0))


def played(agent: Agent, seed: int, moves: int) -> float:
    """Return of one episode in a loop that knows gymnasium alone."""
    env = gymnasium.make("CartPole-v1")
    observation, _ = env.reset(seed=seed)
    agent.reset()
    score = 0.0
    for _ in range(moves):
        action = agent.act(observation)
        assert env.action_space.contains(action)
        observation, reward, terminated, truncated, _ = env.step(action)
        score += float(reward)
        if terminated or truncated:
            break
    return score


def test_acting_in_a_loop_of_ones_own_scores_what_an_evaluation_scores(run: Run) -> None:
    agent, evaluator = trained_evaluator(run)
    expected = evaluator.evaluate(episodes=4, seed=5).returns.tolist()
    assert [played(agent, 5 + episode, 60) for episode in range(4)] == expected
    assert len(set(expected)) > 1


@pytest.mark.parametrize("kind", ["gumbel", "puct"])
def test_a_plan_tells_what_the_search_found(tmp_path: Path, kind: str) -> None:
    config = {"search": {"kind": kind, "simulations": 12}}
    agent = Agent.load(make_run(tmp_path / "run", **config))
    rng = np.random.default_rng(0)
    observations = rng.normal(0, 0.1, (3, 4)).astype(np.float32)
    plan = agent.plan(observations)
    assert plan.visits.sum(axis=1).tolist() == [12, 12, 12]
    np.testing.assert_allclose(plan.policy.sum(axis=1), 1.0, rtol=1e-5)
    np.testing.assert_allclose(plan.prior.sum(axis=1), 1.0, rtol=1e-5)
    tree = plan.tree
    assert tree is not None
    assert tree.parent.shape == (3, 13)
    for row in range(3):
        alone = agent.plan([observations[row]])
        assert alone.actions[0] == plan.actions[row]
        np.testing.assert_array_equal(alone.visits[0], plan.visits[row])
        np.testing.assert_allclose(alone.values[0], plan.values[row], rtol=1e-4)
        for node in range(13):
            children = np.flatnonzero(tree.parent[row] == node)
            assert tree.visits[row, node] == 1 + tree.visits[row, children].sum()
            for child in children:
                q = tree.reward[row, child] + agent.config.learner.discount * tree.value[row, child]
                np.testing.assert_allclose(tree.q[row, child], q, rtol=1e-4)
                if node == 0:
                    action = tree.action[row, child]
                    assert plan.visits[row, action] == tree.visits[row, child]
                    assert plan.rewards[row, action] == tree.reward[row, child]
                    assert plan.q_values[row, action] == tree.q[row, child]


def test_a_plan_with_a_temperature_draws_from_its_policy(run: Run) -> None:
    agent = Agent.load(run, seed=1)
    observations = [np.zeros(4, np.float32)] * 400
    plan = agent.plan(observations, temperature=20.0)
    weights = plan.policy[0].astype(np.float64) ** (1 / 20)
    share, expected = plan.actions.mean(), weights[1] / weights.sum()
    assert 0.05 < expected < 0.95
    assert abs(share - expected) < 4 * np.sqrt(expected * (1 - expected) / 400)
    assert len(set(agent.plan(observations).actions.tolist())) == 1


def test_frames_are_stacked_until_reset(tmp_path: Path) -> None:
    """The newest three count: an observation alone, and the same one after others, are searched as `plan` says."""
    agent = Agent.load(make_run(tmp_path / "run", "breakout"))
    rng = np.random.default_rng(3)
    frames = [rng.integers(0, 256, (32, 32), np.uint8) for _ in range(5)]
    seen = []
    agent.reset()
    for end in range(1, 6):
        agent.act(frames[end - 1])
        seen.append(agent._stacker.stacked[0].copy())
        expected = np.zeros((3, 32, 32), np.uint8)
        newest = frames[max(end - 3, 0) : end]
        expected[3 - len(newest) :] = newest
        np.testing.assert_array_equal(seen[-1], expected)
    agent.reset()
    agent.act(frames[0])
    np.testing.assert_array_equal(agent._stacker.stacked[0], seen[0])
    whole = agent.plan([frames[2:5], frames[0]])
    root = agent.planner.engine.initial(np.stack([seen[4], seen[0]]))
    np.testing.assert_allclose(whole.network_values, root.value, rtol=1e-5)


def test_a_board_game_is_acted_in_by_its_state(tmp_path: Path) -> None:
    pytest.importorskip("pyspiel")
    run = make_run(tmp_path / "run", "tictactoe")
    agent, environment = Agent.load(run), make_environment(run.config.env, evaluation=True)
    frame = environment.reset(0)
    while environment.legal_actions().any():
        np.testing.assert_array_equal(agent._spaces.frame(environment.state), frame)
        agent.reset()
        action = agent.act(environment.state)
        assert environment.legal_actions()[action]
        frame = environment.step(action).observation
    with pytest.raises(ValueError, match=r"expected a pyspiel\.State in play"):
        agent.act(environment.state)


def test_an_adapter_without_spaces_of_its_own_shows_its_frames() -> None:
    """As those of users' packages may be."""
    spaces = FrameSpaces(EnvSpec("theirs", (2, 3), "float32", 4))
    assert spaces.frame([[1, 2, 3], [4, 5, 6]]).dtype == np.float32
    assert spaces.legal(None) is None
    assert spaces.action(3) == 3
    with pytest.raises(ValueError, match=r"observation of theirs: expected float32 \(2, 3\), got int64 \(2,\)"):
        spaces.frame([1, 2])


def test_what_is_not_allowed_is_not_chosen(run: Run) -> None:
    agent = Agent.load(run)
    for allowed in ([1, 0], [0, 1]):
        agent.reset()
        assert agent.act(np.zeros(4, np.float32), np.array(allowed, np.int8)) == allowed.index(1)
    plan = agent.plan([np.zeros(4)] * 2, [[1, 0], [0, 1]])
    assert plan.actions.tolist() == [0, 1]
    assert plan.prior.tolist() == [[1.0, 0.0], [0.0, 1.0]]


def test_malformed_input_is_named(run: Run) -> None:
    agent = Agent.load(run)
    with pytest.raises(ValueError, match=r"CartPole-v1: expected float32 \(4,\) as its space says, got float64 \(3,\)"):
        agent.act([0.0, 1.0, 2.0])
    with pytest.raises(ValueError, match=r"legal: expected 0 and 1 for each of 2 actions of 1 positions"):
        agent.act(np.zeros(4), [1, 1, 1])
    with pytest.raises(ValueError, match="no observation was given"):
        agent.plan([])
    with pytest.raises(ConfigError, match=r"device=cuda:99: this machine has no such device"):
        Agent.load(run, device="cuda:99")
    with pytest.raises(ConfigError, match=r"evaluation\.simulations: must be at least 1"):
        Agent.load(run, simulations=0)


def test_the_weights_are_those_of_the_checkpoint_that_was_asked_for(run: Run) -> None:
    """Checkpoint 10 has the better score, 20 is the last."""
    states = np.random.default_rng(1).normal(size=(6, 4))
    last, best, named = (Agent.load(run, checkpoint=which) for which in ("last", "best", 10))
    assert (last.step, best.step, named.step) == (20, 10, 10)
    assert best.plan(states).values.tolist() == named.plan(states).values.tolist() != last.plan(states).values.tolist()


def test_a_folder_of_a_checkpoint_will_do_also_without_its_run(run: Run, tmp_path: Path) -> None:
    states = np.random.default_rng(1).normal(size=(6, 4))
    inside = run.checkpoints_folder / "10"
    copy = shutil.copytree(inside, tmp_path / "copy")
    expected = Agent.load(run, checkpoint=10).plan(states).values.tolist()
    assert Agent.load(inside).plan(states).values.tolist() == expected
    assert Agent.load(str(copy)).plan(states).values.tolist() == expected
    with pytest.raises(ConfigError, match=r"checkpoint=best: .* is not the folder of a run"):
        Agent.load(copy, checkpoint="best")


def test_weights_of_another_network_are_refused(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    run.write_config(run.config.override({"network.hidden": 24}))
    with pytest.raises(CheckpointError, match=r"10 does not fit this network: \w.* has shape"):
        Agent.load(run)


def test_a_run_trained_on_a_gpu_acts_and_is_scored_without_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = make_run(tmp_path / "run", scores=(3.0, 1.0), learner={"device": "cuda:63"})
    for optimizer in run.checkpoints_folder.glob("*/optimizer.safetensors"):
        optimizer.unlink()
    assert played(Agent.load(run), 0, 60) > 0
    scores = []
    for words in ([], ["--checkpoint", "best"], ["--checkpoint", "10"], ["--checkpoint", "last"]):
        assert main(["evaluate", str(run.folder), "--episodes", "2", "--json", *words]) == 0
        scores.append(json.loads(capsys.readouterr().out))
    assert [score["learner_step"] for score in scores] == [20, 10, 10, 20]
    # A score that was high enough for its weights to be chosen says so: it is not to be compared with the others.
    assert [score["protocol"].get("checkpoint") for score in scores] == [None, "best", None, None]
    digests = [score["protocol"]["digest"] for score in scores]
    assert digests[0] == digests[2] == digests[3] != digests[1]
    assert scores[1]["returns"] == scores[2]["returns"]


def test_a_checkpoint_that_cannot_be_meant_is_refused(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["evaluate", str(run.folder), "--checkpoint", "newest"]) == 2
    assert (
        "--checkpoint: is not of the expected form (got 'newest'). Use best, last or the learner step"
        in capsys.readouterr().err
    )
    for step in ("15", "0"):
        assert main(["play", str(run.folder), "--checkpoint", step]) == 1
        assert "no checkpoint of that learner step. Kept are those of steps 20, 10" in capsys.readouterr().err


def test_settings_of_evaluations_are_those_of_the_run(run: Run) -> None:
    config: Config = Agent.load(run, simulations=9).config
    assert config.evaluation.simulations == 9
    assert config == run.config.override({"evaluation.simulations": 9})
