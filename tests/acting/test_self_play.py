"""Self-play in a scripted world: what is recorded is what happened, by a diary that the environments keep."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from muzero_ray.acting.frame_stacker import FrameStacker
from muzero_ray.acting.rollout_stats import RolloutStats
from muzero_ray.acting.self_play import PreparedWeights, SelfPlay
from muzero_ray.search.planner import Planner
from muzero_ray.types import Array, GameHistory, Weights, WeightsVersion
from tests.acting.scripted import (
    FRAME,
    ScriptedEngine,
    ScriptedEnvironment,
    ScriptedSearch,
    WholeGames,
    frame_at,
    legal_at,
    policy_for,
    value_of,
    where,
)

OVERLAP = 5
VERSION = WeightsVersion(0, 7)


@dataclass
class World:
    """A SelfPlay over scripted environments, and everything it emitted."""

    self_play: SelfPlay
    environments: list[ScriptedEnvironment]
    engine: ScriptedEngine
    search: ScriptedSearch
    emitted: list[GameHistory]

    def play(self, transitions: int, temperature: float = 1.0) -> RolloutStats:
        return self.self_play.play(transitions, temperature=temperature, emit=self.emitted.append)


def make_world(
    lengths: Sequence[Sequence[int]] = ((3, 30), (8,), (21, 2)),
    *,
    players: int = 1,
    truncated: Sequence[bool] = (False, False, False),
    stack: int = 3,
    segment_length: int = 6,
    temperature_moves: int | None = None,
    **settings: Any,
) -> World:
    environments = [
        ScriptedEnvironment(env, env_lengths, players=players, truncated=cut)
        for env, (env_lengths, cut) in enumerate(zip(lengths, truncated, strict=True))
    ]
    engine, search = ScriptedEngine(), ScriptedSearch()
    planner: Any = Planner(engine, search)  # type: ignore[arg-type]
    self_play = SelfPlay(
        environments,
        planner,
        frame_stack=stack,
        segment_length=segment_length,
        overlap=OVERLAP,
        simulations=9,
        temperature_moves=temperature_moves,
        **({"actor": 2, "incarnation": 5, "seed": 11} | settings),
    )
    self_play.set_weights(Weights(VERSION, np.zeros(1, np.float32)))
    return World(self_play, environments, engine, search, [])


def slow_stack(env: int, game: int, move: int, stack: int) -> Array:
    """Frames of moves `move - stack + 1 .. move`, zeros before the game."""
    frames = [
        frame_at(env, game, t) if t >= 0 else np.zeros(FRAME, np.uint8) for t in range(move - stack + 1, move + 1)
    ]
    return np.concatenate(frames)


@pytest.mark.parametrize("players", [1, 2])
@pytest.mark.parametrize("stack", [1, 3])
@pytest.mark.parametrize("chunk", [3, 40, 10_000])
def test_what_is_recorded_is_what_happened(players: int, stack: int, chunk: int) -> None:
    """However the work is cut into calls. Environment 1 truncates its games, the others terminate."""
    world = make_world(players=players, stack=stack, truncated=(False, True, False))
    total = 270
    while sum(len(environment.diary) for environment in world.environments) < total:
        world.play(min(chunk, total))
    whole = WholeGames(OVERLAP)
    for segment in world.emitted:
        whole.take(segment)
    finished = 0
    for (env, game), parts in whole.games.items():
        diary = [entry for entry in world.environments[env].diary if entry.game == game]
        start = 0
        for part in parts:
            over = part.terminated or part.truncated
            stop = start + len(part)
            moves = diary[start:stop]
            assert part.actions.tolist() == [entry.action for entry in moves]
            assert part.rewards.tolist() == [entry.reward for entry in moves]
            assert part.to_play[:-1].tolist() == [entry.player for entry in moves]
            for t in range(start, stop):
                assert where(part.observations[part.context + t - start]) == (env, game, t)
                np.testing.assert_array_equal(part.observations[part.context + t - start], frame_at(env, game, t))
                np.testing.assert_array_equal(part.legal[t - start], legal_at(env, game, t))
                expected = policy_for(diary[t].action, legal_at(env, game, t))
                np.testing.assert_array_equal(part.policies[t - start], expected)
                value = np.float32(value_of(slow_stack(env, game, t, stack))) + np.float32(0.5)
                assert part.root_values[t - start] == value
            np.testing.assert_array_equal(part.observations[-1], frame_at(env, game, stop))
            assert part.to_play[-1] == (game + stop) % players
            if over:
                assert stop == len(diary)
                assert (part.terminated, part.truncated) == (env != 1, env == 1)
                # Nothing more can be earned, or the network's own estimate of the state that was left.
                last = 0.0 if part.terminated else np.float32(value_of(slow_stack(env, game, stop, stack)))
                assert part.root_values[-1] == last
                assert part.legal[-1].tolist() == (
                    [False] * 4 if part.terminated else legal_at(env, game, stop).tolist()
                )
                finished += 1
            assert part.version == VERSION
            assert (part.id.actor, part.id.incarnation) == (2, 5)
            start += part.owned
    assert finished >= 3 + 8 + 6
    assert len(world.emitted) > finished
    assert all(world.search.explored)


def test_the_network_sees_stacked_frames_with_zeros_before_a_game() -> None:
    world = make_world(stack=4)
    world.play(60)
    for observations in world.engine.seen:
        for env, row in enumerate(observations):
            newest = where(row[-FRAME[0] :])
            assert newest[0] == env
            np.testing.assert_array_equal(row, slow_stack(*newest, stack=4))


def test_frame_stacker_forgets_the_game_before() -> None:
    stacker = FrameStacker(2, FRAME, "uint8", 3)
    for move in range(5):
        (stacker.push if move else stacker.start)(0, frame_at(0, 0, move))
        np.testing.assert_array_equal(stacker.stacked[0], slow_stack(0, 0, move, 3))
        assert not stacker.stacked[1].any()
    stacker.start(0, frame_at(0, 1, 0))
    np.testing.assert_array_equal(stacker.stacked[0], slow_stack(0, 1, 0, 3))
    for newest in range(1, 4):
        frames = np.stack([frame_at(1, 0, move) for move in range(newest)])
        stacker.restore(1, frames)
        np.testing.assert_array_equal(stacker.stacked[1], slow_stack(1, 0, newest - 1, 3))


def test_statistics_are_sums_of_what_was_played() -> None:
    world = make_world(players=2)
    first, second = world.play(100), world.play(60)
    assert (first.transitions, second.transitions) == (102, 60)  # whole rounds of three
    assert first.simulations == 102 * 9
    assert first.inserted + second.inserted == sum(segment.owned for segment in world.emitted)
    assert first.version == VERSION
    played = [(env, entry) for env, e in enumerate(world.environments) for entry in e.diary]
    assert len(played) == 162
    lengths = {0: (3, 30), 1: (8,), 2: (21, 2)}
    expected = []
    for env, environment in enumerate(world.environments):
        for game in range(len(environment.seeds)):
            moves = [entry for entry in environment.diary if entry.game == game]
            if len(moves) == lengths[env][game % len(lengths[env])]:
                score = sum(entry.reward if entry.player == 0 else -entry.reward for entry in moves)
                expected.append((score, len(moves)))
    episodes = [(episode.score, episode.length) for episode in first.episodes + second.episodes]
    assert sorted(episodes) == sorted(expected)
    assert len(expected) > 8
    # Root entropy and KL to the flat prior, over all searches: both have a closed form for `policy_for`.
    entropy, kl = [], []
    for env, entry in played:
        legal = legal_at(env, entry.game, entry.move)
        policy = policy_for(entry.action, legal).astype(np.float64)
        terms = policy[policy > 0]
        entropy.append(-(terms * np.log(terms)).sum())
        kl.append((terms * np.log(terms * legal.sum())).sum())
    means = [(102 * getattr(first, name) + 60 * getattr(second, name)) / 162 for name in ("root_entropy", "kl_prior")]
    np.testing.assert_allclose(means, [np.mean(entropy), np.mean(kl)], rtol=1e-5)


def test_temperature_is_the_given_one_and_zero_from_a_move_on() -> None:
    world = make_world(temperature_moves=4)
    world.play(90, temperature=0.5)
    lengths = {0: (3, 30), 1: (8,), 2: (21, 2)}
    moves = dict.fromkeys(lengths, 0)
    games = dict.fromkeys(lengths, 0)
    for temperatures in world.search.temperatures:
        for env, temperature in enumerate(temperatures):
            assert temperature == (0.0 if moves[env] >= 4 else 0.5)
            moves[env] += 1
            if moves[env] == lengths[env][games[env] % len(lengths[env])]:
                moves[env], games[env] = 0, games[env] + 1
    plain = make_world()
    plain.play(90, temperature=0.25)
    assert {float(t) for row in plain.search.temperatures for t in row} == {0.25}


def test_a_segment_is_stamped_with_the_weights_that_played_its_first_move() -> None:
    world = make_world()
    for step in range(4):
        world.self_play.set_weights(Weights(WeightsVersion(0, 101 + step), np.full(1, step, np.float32)))
        stats = world.self_play.play(15, temperature=1.0, emit=world.emitted.append)
        assert stats.version == (0, 101 + step)
    assert world.emitted
    for segment in world.emitted:
        _, game, move = where(segment.observations[segment.context])
        env = where(segment.observations[0])[0]
        before = [e for e in world.environments[env].diary if (e.game, e.move) < (game, move)]
        assert segment.version.step == 101 + len(before) // 5


def test_newer_weights_are_adopted_before_the_round_that_finds_them() -> None:
    swapped, at_once = make_world(), make_world()
    rounds = 0

    def newer() -> PreparedWeights | None:
        nonlocal rounds
        rounds += 1
        step = {2: 200, 5: 300}.get(rounds)
        flat = np.full(1, rounds, np.float32)
        return None if step is None else swapped.self_play.prepare(Weights(WeightsVersion(0, step), flat))

    num_envs = len(swapped.environments)
    stats = swapped.self_play.play(6 * num_envs, temperature=1.0, emit=swapped.emitted.append, newer=newer)
    assert rounds == 6
    assert stats.version == swapped.self_play.version == (0, 300)
    assert swapped.engine.flat == [5.0]
    # The same as stopping for them.
    for moves, step in ((1, None), (3, 200), (2, 300)):
        if step is not None:
            at_once.self_play.set_weights(Weights(WeightsVersion(0, step), np.zeros(1, np.float32)))
        at_once.self_play.play(moves * num_envs, temperature=1.0, emit=at_once.emitted.append)
    games, state = swapped.self_play.state()
    expected_games, expected_state = at_once.self_play.state()
    assert games == expected_games
    assert state["versions"] == expected_state["versions"]


def test_reset_seeds_and_actions_come_from_the_seed_the_actor_and_its_incarnation() -> None:
    def diary(**identity: int) -> list[Any]:
        world = make_world(**identity)
        world.play(60)
        return [(e.seeds, e.diary) for e in world.environments]

    base = {"seed": 1, "actor": 0, "incarnation": 0}
    assert diary(**base) == diary(**base)
    for name in base:
        assert diary(**(base | {name: 2})) != diary(**base), name
    seeds = [seed for lane_seeds, _ in diary(**base) for seed in lane_seeds]
    assert len(set(seeds)) == len(seeds)


@pytest.mark.parametrize("transitions", [0, 3, 30, 66, 90])
def test_saved_and_restored_self_play_goes_on_as_if_nothing_had_happened(transitions: int) -> None:
    """0: nothing was played yet. At 66 a game begins in environment 0, and environment 1 is in its middle."""
    uninterrupted, first, second = (make_world(players=2, truncated=(False, True, False)) for _ in range(3))
    if transitions:
        uninterrupted.play(transitions)
        first.play(transitions)
    second.self_play.load_state(*first.self_play.state())
    before = len(uninterrupted.emitted)
    expected, got = uninterrupted.play(120), second.play(120)
    assert got.episodes == expected.episodes
    assert got.inserted == expected.inserted
    assert len(second.emitted) == len(uninterrupted.emitted) - before > 5
    for one, other in zip(uninterrupted.emitted[before:], second.emitted, strict=True):
        assert (one.id, one.owned, one.context, one.version) == (other.id, other.owned, other.context, other.version)
        assert (one.terminated, one.truncated) == (other.terminated, other.truncated)
        for name in ("observations", "actions", "rewards", "to_play", "legal", "policies", "root_values"):
            np.testing.assert_array_equal(getattr(one, name), getattr(other, name))


def test_games_that_cannot_be_handed_out_are_over_all_the_same() -> None:
    """Replay was gone for a while: the next call goes on in new games and does not search an ended one."""
    world = make_world(((3, 30), (3, 8)), truncated=(False, True))

    def refuse(_: GameHistory) -> None:
        raise ConnectionError("replay is gone")

    with pytest.raises(ConnectionError):
        world.self_play.play(100, temperature=1.0, emit=refuse)
    world.play(4)
    for environment in world.environments:
        assert [(move.game, move.move) for move in environment.diary] == [(0, 0), (0, 1), (0, 2), (1, 0), (1, 1)]


def test_close_closes_every_environment() -> None:
    world = make_world()
    world.self_play.close()
    assert all(environment.closed for environment in world.environments)
