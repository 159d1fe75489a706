"""The order in which games are searched again, against a search through all games for each answer."""

from __future__ import annotations

import heapq

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from muzero_ray.replay.buffer import ReplayBuffer
from muzero_ray.types import WeightsVersion
from tests.replay.games import ACTIONS, make_buffer, make_game

ADD, SEARCH_AGAIN, RESUME = "add", "search again", "resume"
STEPS = st.integers(0, 4)


def slow_oldest(buffer: ReplayBuffer, count: int) -> list[int]:
    """As it was defined when every answer looked at all games."""
    games = buffer._store.games.items()
    return [number for number, _ in heapq.nsmallest(count, games, key=lambda item: (item[1].target_version, item[0]))]


def search_again(buffer: ReplayBuffer, number: int, incarnation: int, step: int) -> None:
    size = buffer._store.games[number].searched
    policies = np.full((size, ACTIONS), 1 / ACTIONS, np.float32)
    assert buffer.replace_targets(number, policies, np.zeros(size, np.float32), WeightsVersion(incarnation, step))


@settings(max_examples=150, deadline=None)
@given(
    st.lists(
        st.one_of(
            st.tuples(st.just(ADD), STEPS),
            st.tuples(st.just(SEARCH_AGAIN), st.integers(0, 20), st.integers(0, 1), STEPS),
            st.tuples(st.just(RESUME)),
        ),
        max_size=60,
    ),
    st.integers(1, 4),
)
def test_the_order_is_that_of_a_search_through_all_games(operations: list[tuple[int, ...]], count: int) -> None:
    """Versions repeat and go back; games leave, come back after a resume, and are searched again in any order."""
    rng = np.random.default_rng(0)
    buffer, games = make_buffer(capacity=20), {}
    for seq, (kind, *arguments) in enumerate(operations):
        kept = list(buffer._store.games)
        if kind == ADD:
            game = make_game(rng, 1 + seq % 5, seq=seq, step=arguments[0])
            games[game.id] = game
            buffer.add(game)
        elif kind == SEARCH_AGAIN and kept:
            search_again(buffer, kept[arguments[0] % len(kept)], *arguments[1:])
        elif kind == RESUME:
            arrays, meta = buffer.state()
            kept_games = [games[game_id] for game_id in buffer.game_ids()]
            buffer = make_buffer(capacity=20)
            buffer.load_state(arrays, meta, kept_games)
        assert [stale.game for stale in buffer.stale_games(count)] == slow_oldest(buffer, count)
    assert [stale.game for stale in buffer.stale_games(99)] == slow_oldest(buffer, 99)


def test_the_queue_never_outgrows_the_games() -> None:
    """Nobody may ever ask: games come and go, and are searched again, for as long as a run lasts."""
    rng = np.random.default_rng(0)
    buffer = make_buffer(capacity=20)
    for seq in range(1_000):
        buffer.add(make_game(rng, 2, seq=seq))
        search_again(buffer, seq, 0, seq)
        assert len(buffer._stale._heap) <= 2 * buffer.games + 64


def test_a_pass_looks_at_each_game_a_few_times(monkeypatch) -> None:
    """What is counted is how often an answer looks at a game: with a search through all games it is 90,000 times."""
    rng = np.random.default_rng(0)
    buffer = make_buffer()
    for seq in range(300):
        buffer.add(make_game(rng, 2, seq=seq))
    looks = [0]
    holds = type(buffer._stale)._holds

    def counted(queue, entry):
        looks[0] += 1
        return holds(queue, entry)

    monkeypatch.setattr(type(buffer._stale), "_holds", counted)
    for expected in range(300):
        (stale,) = buffer.stale_games(1)
        assert stale.game == expected
        search_again(buffer, stale.game, 0, 1)
    assert looks[0] <= 3 * 300
