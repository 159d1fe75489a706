"""What every search promises: rows apart, seeds, legality, temperature, errors, reused memory."""

from typing import Any

import numpy as np
import pytest

from muzero_ray.config.schema import GumbelConfig, PuctConfig
from muzero_ray.errors import NumericsError
from muzero_ray.inference.host_latents import HostLatents
from muzero_ray.search.policies import make_search, signed_discount
from muzero_ray.search.tree import init_roots
from muzero_ray.search.workspace import Workspace
from muzero_ray.types import Array, EdgeAnswers, NetworkOutput, SearchResult

from .worlds import Table, bandit, random_table

KINDS = ["puct", "gumbel"]


def assert_same(first: SearchResult, second: SearchResult) -> None:
    for name, left, right in zip(first._fields, first, second, strict=True):
        np.testing.assert_array_equal(left, right, err_msg=name)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("unvisited", ["zero", "parent", "completed"])
def test_rows_do_not_depend_on_their_batch(kind: str, unvisited: str) -> None:
    table = random_table(1, states=30, actions=5)
    states = np.arange(12)
    legal = np.random.default_rng(0).random((12, 5)) < 0.7
    legal[:, 2] = True
    settings: dict[str, Any] = {"unvisited": unvisited} if kind == "puct" else {}
    together = table.search(kind, states, 60, legal=legal, **settings)
    for rows in ([3], [11, 3, 0], list(reversed(range(12)))):
        apart = table.search(kind, states[rows], 60, legal=legal[rows], **settings)
        assert_same(apart, SearchResult(*(array[rows] for array in together)))


@pytest.mark.parametrize("kind", KINDS)
def test_the_seed_decides_the_search(kind: str) -> None:
    table = random_table(2, states=30, actions=6)
    states = np.arange(30)
    first, second, other = (table.search(kind, states, 20, noise=True, seed=seed) for seed in (4, 4, 5))
    assert_same(first, second)
    assert (first.visit_counts != other.visit_counts).any()


@pytest.mark.parametrize("kind", KINDS)
def test_without_noise_the_generator_is_left_alone(kind: str) -> None:
    table = random_table(2, states=5, actions=6)
    rng = np.random.default_rng(1)
    before = rng.bit_generator.state
    table.search(kind, np.arange(5), 20, rng=rng)
    assert rng.bit_generator.state == before


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("noise", [False, True])
def test_illegal_actions_are_never_visited(kind: str, noise: bool) -> None:
    table = random_table(6, states=64, actions=7)
    # What is forbidden looks best.
    table.logits[:, 0] = 50.0
    table.reward[:, 0] = 100.0
    legal = np.random.default_rng(3).random((64, 7)) < 0.4
    legal[:, 0], legal[:, 3] = False, True
    for simulations in (1, 2, 40):
        result = table.search(kind, np.arange(64), simulations, legal=legal, noise=noise)
        assert not result.visit_counts[~legal].any()
        assert not result.policy_target[~legal].any()
        assert legal[np.arange(64), result.action].all()
        np.testing.assert_array_equal(result.visit_counts.sum(axis=1), simulations)
        np.testing.assert_allclose(result.policy_target.sum(axis=1), 1.0, rtol=1e-5)


def test_dirichlet_noise_has_the_moments_of_its_legal_actions() -> None:
    """Each of k legal actions has mean 1/k and variance (1/k)(1 - 1/k) / (k alpha + 1); illegal ones have none."""
    alpha, legal = 0.5, np.tile([True, True, False, True, True], (40_000, 1))
    workspace = Workspace(len(legal), 2, 5)
    draws = np.random.default_rng(0).standard_gamma(alpha, legal.shape)
    assert init_roots(workspace.pointers, legal, draws, 1.0, 0.0, 0.0, 0.0)
    assert (workspace.priors[:, 0, 2] == -1).all()
    noise = np.maximum(workspace.priors[:, 0], 0.0)
    np.testing.assert_allclose(noise.sum(axis=1), 1.0, rtol=1e-5)
    np.testing.assert_allclose(noise.mean(axis=0), [0.25, 0.25, 0.0, 0.25, 0.25], atol=0.005)
    variance = 0.25 * 0.75 / (4 * alpha + 1)
    np.testing.assert_allclose(noise.var(axis=0), [variance, variance, 0.0, variance, variance], atol=0.002)


def test_dirichlet_noise_takes_its_fraction_of_the_prior() -> None:
    """Priors 0.6 and 0.4, alpha 1 (uniform noise u), fraction 1/4: the second action goes first where
    3/4 * 0.4 + u/4 > 3/4 * 0.6 + (1 - u)/4, that is u > 0.8."""
    rows = 8_000
    world = bandit(np.zeros(3), np.log([0.3, 0.5, 0.2]))
    legal = np.tile([True, False, True], (rows, 1))
    settings: dict[str, Any] = {"legal": legal, "noise": True, "dirichlet_alpha": 1.0, "noise_fraction": 0.25}
    result = world.search("puct", np.zeros(rows, int), 1, **settings)
    np.testing.assert_allclose(result.visit_counts.mean(axis=0), [0.8, 0.0, 0.2], atol=0.02)


def test_tiny_dirichlet_noise_does_not_divide_by_zero() -> None:
    world = bandit(np.zeros(2), np.zeros(2))
    result = world.search("puct", np.zeros(50, int), 4, noise=True, dirichlet_alpha=1e-4)
    np.testing.assert_allclose(result.policy_target.sum(axis=1), 1.0)


@pytest.mark.parametrize("temperature", [0.25, 0.5, 1.0, 2.0])
def test_actions_are_drawn_from_visits_to_the_inverse_temperature(temperature: float) -> None:
    rows = 20_000
    world = bandit(np.array([0.3, 0.0, 0.5, -0.2]), np.array([0.0, 0.5, 0.2, 0.1]))
    settings: dict[str, Any] = {"noise": True, "noise_fraction": 0.0}
    result = world.search(
        "puct", np.zeros(rows, int), 30, temperature=np.full(rows, temperature, np.float32), **settings
    )
    weights = [count ** (1.0 / temperature) for count in result.visit_counts[0].tolist()]
    expected = np.array(weights) / sum(weights)
    frequency = np.bincount(result.action, minlength=4) / rows
    np.testing.assert_allclose(frequency, expected, atol=0.015)
    np.testing.assert_allclose(result.policy_target[0], result.visit_counts[0] / 30.0, rtol=1e-6)


def test_temperature_zero_is_the_most_visited_action_row_by_row() -> None:
    table = random_table(8, states=40, actions=5)
    temperature = np.where(np.arange(40) % 2 == 0, 0.0, 1.0).astype(np.float32)
    result = table.search("puct", np.arange(40), 25, noise=True, temperature=temperature)
    most = result.visit_counts.max(axis=1)
    chosen = result.visit_counts[np.arange(40), result.action]
    assert (chosen == most)[temperature == 0].all()
    assert (chosen != most)[temperature > 0].any()
    greedy = table.search("puct", np.arange(40), 25)
    assert (greedy.visit_counts[np.arange(40), greedy.action] == greedy.visit_counts.max(axis=1)).all()


def test_equally_visited_actions_are_decided_by_their_q() -> None:
    world = bandit(np.array([0.0, 0.0, 1.0, 0.5]), np.zeros(4))
    result = world.search("puct", np.zeros(1, int), 4, pb_c_init=1e6)
    assert result.visit_counts.tolist() == [[1, 1, 1, 1]]
    assert result.action.tolist() == [2]


def test_min_max_makes_puct_blind_to_the_scale_of_rewards() -> None:
    table = random_table(9, states=20, actions=4)
    large = Table(table.following, table.reward * 1024.0, table.value * 1024.0, table.logits)
    first, second = (world.search("puct", np.arange(20), 50) for world in (table, large))
    np.testing.assert_array_equal(first.visit_counts, second.visit_counts)
    np.testing.assert_allclose(first.root_value * 1024.0, second.root_value, rtol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_rounding_noise_is_not_taken_for_a_difference(kind: str) -> None:
    """Values that differ by less than float32 resolves must not decide against the prior."""
    table = random_table(9, states=20, actions=3)
    table.reward[:] = 0.0
    table.logits[:] = [0.0, 2.0, 0.0]
    table.value = 1000.0 * (1.0 + 1e-7 * np.random.default_rng(0).normal(size=20))
    result = table.search(kind, np.arange(20), 30, discount=1.0)
    assert (result.action == 1).all()


@pytest.mark.parametrize("kind", KINDS)
def test_a_search_function_can_be_used_again(kind: str) -> None:
    """Its memory is kept from call to call and between shapes; no trace of an earlier search may remain."""
    table = random_table(10, states=30, actions=5)
    config = PuctConfig(simulations=40) if kind == "puct" else GumbelConfig(simulations=40, c_scale=0.1)
    search = make_search(config, discount=0.97, num_players=1)

    def run(states: Any) -> SearchResult:
        count = len(states)
        legal, temperature = np.ones((count, 5), bool), np.ones(count, np.float32)
        rng = np.random.default_rng(0)
        return search(table.initial(states), table, legal, rng, explore=False, temperature=temperature)

    first = run(np.arange(10))
    kept = SearchResult(*(array.copy() for array in first))
    for states in (np.arange(3), np.arange(30), np.arange(7), np.arange(10, 20)):
        run(states)
    assert_same(run(np.arange(10)), kept)
    assert_same(first, kept)
    assert_same(table.search(kind, np.arange(10), 40), kept)


def test_two_players_discount_with_a_negative_sign() -> None:
    assert signed_discount(0.9, 2) == -0.9
    assert signed_discount(0.9, 1) == 0.9


def test_hidden_states_of_any_shape_come_back_to_the_model() -> None:
    """Each request holds the latent that the model itself gave for that row's parent."""
    table = random_table(12, states=30, actions=4)

    def widen(output: NetworkOutput) -> NetworkOutput:
        return output._replace(hidden=np.tile(output.hidden[:, None, None, :], (1, 3, 2, 1)))

    class Wide(HostLatents):
        def recurrent(self, hidden: Any, actions: Any, out: Any) -> None:
            assert hidden.shape[1:] == (3, 2, 1)
            assert actions.dtype == np.int32
            assert (hidden == hidden[:, :1, :1]).all()
            narrow = out._replace(hidden=np.empty((len(actions), 1), np.float32))
            table.recurrent(hidden[:, 0, 0], actions, narrow)
            out.hidden[...] = widen(narrow).hidden

    search = make_search(GumbelConfig(simulations=40, c_scale=0.1), discount=0.97, num_players=1)
    states = np.arange(8)
    legal, temperature = np.ones((8, 4), bool), np.ones(8, np.float32)
    rng = np.random.default_rng(0)
    result = search(widen(table.initial(states)), Wide(), legal, rng, explore=False, temperature=temperature)
    assert_same(result, table.search("gumbel", states, 40))


class OwnMemory:
    """A `Table` that keeps its latents to itself, finds those of the parents by their node, and discounts by itself."""

    def __init__(self, table: Table, discounts: Array | None = None) -> None:
        self.table, self.discounts = table, discounts

    def pool(self, root: Array, nodes: int) -> None:
        self.states = np.full((nodes, len(root)), -1)
        self.states[0] = root[:, 0]

    def expand(self, leaf: int, parents: Array, actions: Array, out: EdgeAnswers) -> None:
        states = self.states[parents, np.arange(len(parents))]
        assert (states >= 0).all()
        after = self.states[leaf] = self.table.following[states, actions]
        out.reward[...] = self.table.reward[states, actions]
        out.value[...], out.policy_logits[...] = self.table.value[after], self.table.logits[after]
        if self.discounts is not None:
            out.discount[...] = self.discounts[states, actions]


def searched(model: Any, root: NetworkOutput, kind: str, simulations: int, discount: float) -> SearchResult:
    """By `model`, without noise."""
    settings = (
        PuctConfig(simulations=simulations) if kind == "puct" else GumbelConfig(simulations=simulations, c_scale=0.1)
    )
    search = make_search(settings, discount=discount, num_players=1)
    rows, legal = len(root.value), np.ones(root.policy_logits.shape, bool)
    heat, rng = np.ones(rows, np.float32), np.random.default_rng(0)
    return search(root, model, legal, rng, explore=False, temperature=heat)


@pytest.mark.parametrize("kind", KINDS)
def test_a_model_may_keep_latents_where_it_likes(kind: str) -> None:
    table, states = random_table(3, states=30, actions=4), np.arange(12)
    found = searched(OwnMemory(table), table.initial(states), kind, 40, 0.97)
    assert_same(found, table.search(kind, states, 40))


def test_each_edge_has_the_discount_that_the_model_says() -> None:
    """Action 0 ends the game: whatever the network says of the state behind it is worth nothing. One simulation."""
    table = random_table(4, states=20, actions=2)
    discounts = np.tile([0.0, 0.5], (20, 1))
    states = np.arange(20)
    found = searched(OwnMemory(table, discounts), table.initial(states), "puct", 1, 0.97)
    action = found.visit_counts.argmax(axis=1)
    rewards, after = table.reward[states, action], table.value[table.following[states, action]]
    expected = (table.value[states] + rewards + discounts[states, action] * after) / 2
    np.testing.assert_allclose(found.root_value, expected, rtol=1e-5)
    assert set(action) == {0, 1}


@pytest.mark.parametrize("kind", KINDS)
def test_malformed_input_is_refused(kind: str) -> None:
    table = random_table(1, states=4, actions=3)
    states = np.arange(4)
    legal = np.ones((4, 3), bool)
    legal[2] = False
    with pytest.raises(ValueError, match="row 2 of legal has no legal action"):
        table.search(kind, states, 5, legal=legal)
    with pytest.raises(ValueError, match="bool mask"):
        table.search(kind, states, 5, legal=np.ones((4, 3)))
    with pytest.raises(ValueError, match="bool mask"):
        table.search(kind, states, 5, legal=np.ones((4, 2), bool))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("field", ["value", "logits", "reward"])
def test_a_broken_network_is_reported(kind: str, field: str) -> None:
    """NaN may not end in a bad index, nor in a silent result."""
    table = random_table(1, states=4, actions=3)
    getattr(table, field)[1:] = np.nan
    if field == "logits":
        result = table.search(kind, np.array([0]), 100)
        assert np.isfinite(result.policy_target).all()
        with pytest.raises(NumericsError, match="root"):
            table.search(kind, np.array([1]), 10)
    else:
        with pytest.raises(NumericsError, match="NaN"):
            table.search(kind, np.array([0]), 100)


@pytest.mark.parametrize("kind", KINDS)
def test_a_range_below_the_smallest_is_not_stretched(kind: str) -> None:
    """Two actions whose values differ by 0.01: stretched, the search commits to the better one; under a smallest range
    of 1 the difference is 1 % of the scale, and visits and target stay near the even prior."""
    world = Table(
        following=np.array([[1, 2], [1, 1], [2, 2]]),
        reward=np.zeros((3, 2)),
        value=np.array([0.0, 0.01, 0.0]),
        logits=np.zeros((3, 2)),
    )
    settings = {"discount": 1.0, "c_scale": 1.0} if kind == "gumbel" else {"discount": 1.0}
    stretched = world.search(kind, np.zeros(1, int), 32, **settings)
    limited = world.search(kind, np.zeros(1, int), 32, **settings, min_value_range=1.0)
    assert stretched.policy_target[0, 0] > 0.8
    assert 0.45 < limited.policy_target[0, 0] < (0.7 if kind == "gumbel" else 0.55)
