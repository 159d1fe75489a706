"""Searches with an exact model, against value iteration, minimax and closed forms."""

import itertools
from typing import Any

import numpy as np
import pytest

from muzero_ray.types import Array

from .worlds import Table, TicTacToe, bandit, random_table, tic_tac_toe

KINDS = ["puct", "gumbel"]


def value_iteration(table: Table, discount: float) -> tuple[Array, Array]:
    """Optimal values `[S]` and Q `[S, A]`."""
    value = np.zeros(len(table.value))
    for _ in range(2_000):
        q = table.reward + discount * value[table.following]
        value = q.max(axis=1)
    return value, q


def policy_evaluation(table: Table, discount: float) -> Array:
    """Values `[S]` of the table's own policy, by solving the Bellman equations."""
    policy = np.exp(table.logits) / np.exp(table.logits).sum(axis=1, keepdims=True)
    states = len(policy)
    transition = np.zeros((states, states))
    for state, action in np.ndindex(policy.shape):
        transition[state, table.following[state, action]] += policy[state, action]
    return np.linalg.solve(np.eye(states) - discount * transition, (policy * table.reward).sum(axis=1))


def assert_optimal(action: Array, q: Array, slack: float) -> None:
    chosen = np.take_along_axis(q, action[:, None], axis=1)[:, 0]
    assert (chosen >= q.max(axis=1) - slack).all()


@pytest.mark.parametrize("discount", [0.5, -0.5])
def test_puct_without_a_value_function_finds_the_optimal_action_and_value(discount: float) -> None:
    few_errors, many_errors = [], []
    for seed in range(5):
        table = random_table(seed, states=8, actions=3)
        optimal, q = value_iteration(table, discount)
        table.value[:], table.logits[:] = 0.0, 0.0
        states = np.arange(8)
        few = table.search("puct", states, 100, discount=discount)
        many = table.search("puct", states, 3_000, discount=discount)
        assert_optimal(many.action, q, slack=0.01)
        few_errors.append(np.abs(few.root_value - optimal))
        many_errors.append(np.abs(many.root_value - optimal))
    # The mean of the backups holds what exploration cost, which vanishes slowly.
    assert np.max(many_errors) < 0.25
    assert np.mean(many_errors) < 0.5 * np.mean(few_errors)


@pytest.mark.parametrize("discount", [0.9, -0.9])
@pytest.mark.parametrize(("kind", "settings"), [("puct", {"pb_c_init": 1e6}), ("gumbel", {"c_scale": 1.0})])
def test_one_visit_an_action_with_exact_values_finds_the_optimal_action(
    kind: str, settings: dict[str, Any], discount: float
) -> None:
    for seed in range(10):
        table = random_table(seed, states=12, actions=4)
        table.value, q = value_iteration(table, discount)
        table.logits[:] = 0.0
        result = table.search(kind, np.arange(12), 4, discount=discount, **settings)
        assert (result.visit_counts == 1).all()
        assert_optimal(result.action, q, slack=1e-5)


def test_gumbel_root_value_is_the_value_of_the_policy() -> None:
    """Each action visited once, exact values: v_mix is the policy's value, unlike the mean of the backups."""
    table = random_table(3, states=10, actions=5)
    table.value = policy_evaluation(table, 0.9)
    result = table.search("gumbel", np.arange(10), 5, discount=0.9)
    np.testing.assert_allclose(result.root_value, table.value, atol=1e-4)


@pytest.fixture(scope="module")
def game() -> TicTacToe:
    return tic_tac_toe()


@pytest.mark.parametrize(
    ("kind", "settings"),
    [
        ("puct", {"value_bounds": (-1.0, 1.0)}),
        ("puct", {"unvisited": "zero"}),
        ("puct", {"unvisited": "completed"}),
        ("gumbel", {"value_bounds": (-1.0, 1.0), "c_scale": 1.0}),
        ("gumbel", {"c_scale": 1.0}),
    ],
)
def test_tic_tac_toe_endgames_are_played_as_minimax_does(game: TicTacToe, kind: str, settings: dict[str, Any]) -> None:
    empty = np.array([board.count(0) for board, _ in game.positions])
    states = np.flatnonzero(~game.over & (empty <= 5))[::7]
    assert len(states) > 300
    result = game.table.search(kind, states, 300, discount=-1.0, legal=game.legal[states], **settings)
    wrong = states[~game.optimal[states, result.action]]
    assert len(wrong) == 0, [game.positions[state] for state in wrong[:5]]
    if kind == "puct":
        np.testing.assert_allclose(result.root_value, game.minimax[states], atol=0.5)


@pytest.mark.parametrize("kind", KINDS)
def test_swapping_the_colours_changes_nothing(game: TicTacToe, kind: str) -> None:
    """A win for one player is a loss for the other, whoever plays which colour."""
    number = {position: state for state, position in enumerate(game.positions)}
    swapped = [number[tuple(-cell for cell in board), -player] for board, player in game.positions]
    pairs = np.stack([np.arange(len(swapped)), swapped], axis=1)[~game.over][::40]
    assert (game.minimax[pairs[:, 0]] == game.minimax[pairs[:, 1]]).all()
    first, second = (game.table.search(kind, states, 50, discount=-1.0, legal=game.legal[states]) for states in pairs.T)
    np.testing.assert_array_equal(first.visit_counts, second.visit_counts)
    np.testing.assert_array_equal(first.root_value, second.root_value)


@pytest.mark.parametrize("discount", [0.9, -0.9])
def test_a_forced_move_before_a_position_has_its_value_discounted_and_signed(discount: float) -> None:
    """The tree below a forced move is the tree of the position after it, so its value follows in closed form."""
    table = random_table(5, states=6, actions=4)
    reward, simulations = 0.7, 40
    table.following = np.vstack([table.following, np.full((1, 4), 2)])
    table.reward = np.vstack([table.reward, np.full((1, 4), reward)])
    table.value = np.append(table.value, 0.3)
    table.logits = np.vstack([table.logits, np.zeros((1, 4))])
    settings: dict[str, Any] = {"discount": discount, "value_bounds": (-10.0, 10.0)}
    after = table.search("puct", np.array([2]), simulations, **settings)
    legal = np.array([[False, True, False, False]])
    before = table.search("puct", np.array([6]), simulations + 1, legal=legal, **settings)
    q = reward + discount * after.root_value[0]
    expected = (0.3 + (simulations + 1) * q) / (simulations + 2)
    np.testing.assert_allclose(before.root_value, [expected], rtol=1e-5)
    np.testing.assert_allclose(before.depth, (1 + simulations * (after.depth + 1)) / (simulations + 1), rtol=1e-6)


def random_bandits(count: int) -> list[tuple[Table, Array]]:
    rng = np.random.default_rng(7)
    sizes = rng.integers(2, 12, size=count)
    worlds = [(rng.normal(size=size), rng.normal(scale=2.0, size=size)) for size in sizes]
    return [(bandit(rewards, logits), rewards) for rewards, logits in worlds]


@pytest.mark.parametrize("c_scale", [0.1, 1.0])
@pytest.mark.parametrize("simulations", [1, 2, 3, 12, 50])
def test_gumbel_target_improves_the_policy(simulations: int, c_scale: float) -> None:
    """Expected value under the target >= under the prior, where Q is exact.

    Draw by draw if each action is visited. With fewer simulations v_mix, not the exact value, stands for the rest,
    and the improvement holds in expectation over the noise.
    """
    for world, rewards in random_bandits(100):
        result = world.search("gumbel", np.zeros(200, int), simulations, noise=True, c_scale=c_scale)
        value = result.policy_target @ rewards
        assert value.mean() >= world.value[0] - 1e-5
        if simulations >= 12:
            assert (value >= world.value[0] - 1e-5).all()


def test_gumbel_target_improves_the_policy_on_random_trees_at_two_simulations() -> None:
    """Trees with the exact values of their policy: one step of the target is worth at least the policy."""
    for seed in range(20):
        table = random_table(seed, states=20, actions=6)
        table.value = policy_evaluation(table, 0.9)
        q = table.reward + 0.9 * table.value[table.following]
        result = table.search("gumbel", np.arange(20), 2, discount=0.9, noise=True, seed=seed)
        assert ((result.policy_target * q).sum(axis=1) >= table.value - 1e-4).all()


def test_gumbel_action_improves_the_policy_in_expectation() -> None:
    rng = np.random.default_rng(11)
    rows = 4_000
    for simulations, actions in itertools.product([2, 16], [3, 10]):
        rewards, logits = rng.normal(size=actions), rng.normal(size=actions)
        world = bandit(rewards, logits)
        result = world.search("gumbel", np.zeros(rows, int), simulations, noise=True, seed=actions)
        earned = rewards[result.action]
        assert earned.mean() >= world.value[0] - 3.0 * earned.std() / np.sqrt(rows)
        assert len(np.unique(result.action)) > 1


def test_one_gumbel_simulation_samples_the_policy() -> None:
    """Gumbel-max: the best of noise + logits is a draw from softmax(logits)."""
    logits, rows = np.array([1.0, 0.0, -1.0, 2.0]), 20_000
    world = bandit(np.zeros(4), logits)
    result = world.search("gumbel", np.zeros(rows, int), 1, noise=True)
    frequency = np.bincount(result.action, minlength=4) / rows
    np.testing.assert_allclose(frequency, np.exp(logits) / np.exp(logits).sum(), atol=0.015)


def test_a_fresh_node_follows_its_prior() -> None:
    """N counts the node's own expansion; if it did not, the first choice would ignore the prior."""
    world = bandit(np.zeros(5), np.array([0.0, 0.1, 0.5, 0.2, 0.3]))
    result = world.search("puct", np.zeros(1, int), 1)
    assert result.visit_counts.tolist() == [[0, 0, 1, 0, 0]]


def test_depth_of_a_corridor() -> None:
    table = Table(np.array([[1], [0]]), np.ones((2, 1)), np.zeros(2), np.zeros((2, 1)))
    for kind in KINDS:
        result = table.search(kind, np.array([0, 1]), 9, discount=1.0)
        np.testing.assert_allclose(result.depth, [5.0, 5.0])
        assert result.visit_counts.tolist() == [[9], [9]]
