"""Segments of a long game against the game itself, kept move by move in plain lists."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import pytest

from muzero_ray.acting.recorder import GameRecorder
from muzero_ray.replay.encoding import decode_game, encode_game
from muzero_ray.types import GameHistory, GameId, WeightsVersion
from tests.replay.games import DISCOUNT, TD_STEPS, UNROLL, assert_item, make_buffer, make_game

OVERLAP = UNROLL + TD_STEPS


@dataclass
class Recording:
    """What `record_game` handed out, and how much of the game was in the recorder at most."""

    segments: list[GameHistory] = field(default_factory=list)
    longest: int = 0


def record_game(game: GameHistory, make: Callable[[], GameRecorder], *, interrupt: bool = False) -> Recording:
    """Feed a whole game to a recorder move by move; `interrupt` saves it and resumes another before every move."""
    result, recorder = Recording(), make()

    def next_id() -> GameId:
        return GameId(0, 0, len(result.segments))

    recorder.start(game.observations[0], int(game.to_play[0]), game.legal[0])
    for t in range(len(game)):
        if interrupt and len(recorder):
            saved, versions = decode_game(encode_game(recorder.partial())), recorder.versions
            recorder = make()
            recorder.resume(saved, versions)
        recorder.record(
            action=int(game.actions[t]),
            reward=float(game.rewards[t]),
            policy=game.policies[t],
            root_value=float(game.root_values[t]),
            version=WeightsVersion(1, 10 * t),
            frame=game.observations[t + 1],
            to_play=int(game.to_play[t + 1]),
            legal=game.legal[t + 1],
        )
        result.longest = max(result.longest, len(recorder))
        if t + 1 < len(game) and recorder.segment_ready():
            result.segments.append(recorder.cut(next_id()))
    result.segments.append(
        recorder.finish(
            next_id(),
            last_value=float(game.root_values[-1]),
            terminated=game.terminated,
            truncated=game.truncated,
        )
    )
    return result


def make_recorder(segment_length: int, stack: int) -> GameRecorder:
    return GameRecorder(segment_length=segment_length, overlap=OVERLAP, frame_stack=stack)


# Whole, exactly one segment and its overlap, one more, many; segments shorter and longer than overlap and stack.
LENGTHS = [(1, 5), (5, 5), (11, 5), (12, 5), (13, 5), (100, 5), (100, 1), (100, 40), (40, 100)]


@pytest.mark.parametrize("stack", [1, 4])
@pytest.mark.parametrize("end", ["terminated", "truncated"])
@pytest.mark.parametrize(("steps", "segment_length"), LENGTHS)
@pytest.mark.parametrize("interrupt", [False, True])
def test_segments_are_the_game(steps: int, segment_length: int, end: str, stack: int, interrupt: bool) -> None:
    game = make_game(np.random.default_rng(steps), steps, end=end, players=2, frame=(2, 3, 3), dtype=np.uint8)
    recording = record_game(game, partial(make_recorder, segment_length, stack), interrupt=interrupt)
    start = 0
    for number, segment in enumerate(recording.segments):
        last = number == len(recording.segments) - 1
        assert segment.id == (0, 0, number)
        assert segment.owned == (steps - start if last else segment_length)
        length = segment.owned if last else segment_length + OVERLAP
        stop = start + length
        assert len(segment) == length
        assert segment.context == min(stack - 1, start)
        np.testing.assert_array_equal(segment.observations, game.observations[start - segment.context : stop + 1])
        np.testing.assert_array_equal(segment.actions, game.actions[start:stop])
        np.testing.assert_array_equal(segment.rewards, game.rewards[start:stop])
        np.testing.assert_array_equal(segment.policies, game.policies[start:stop])
        np.testing.assert_array_equal(segment.to_play, game.to_play[start : stop + 1])
        np.testing.assert_array_equal(segment.legal, game.legal[start : stop + 1])
        np.testing.assert_array_equal(segment.root_values[:-1], game.root_values[start:stop])
        assert segment.root_values[-1] == (game.root_values[-1] if last else 0.0)
        assert (segment.terminated, segment.truncated) == (
            (game.terminated, game.truncated) if last else (False, False)
        )
        assert segment.version == (1, 10 * start)
        start += segment.owned
    assert start == steps
    assert recording.longest <= segment_length + OVERLAP
    # Never a segment that the end of the game would have fitted into.
    assert len(recording.segments) == max(1, -(-(steps - OVERLAP) // segment_length))


@pytest.mark.parametrize("end", ["terminated", "truncated"])
@pytest.mark.parametrize("players", [1, 2])
def test_replay_forms_the_targets_of_the_whole_game_from_segments(end: str, players: int) -> None:
    """Across cuts, with frame stacks: every target equals the slow formula on the uncut game."""
    stack, steps, segment_length = 3, 50, 9
    game = make_game(np.random.default_rng(5), steps, end=end, players=players, frame=(1, 2, 2), dtype=np.uint8)
    segments = record_game(game, partial(make_recorder, segment_length, stack)).segments
    assert len(segments) > 3
    buffer = make_buffer(frame_stack=stack, with_next_observations=True, num_players=players, discount=DISCOUNT)
    starts = {}
    for number, segment in enumerate(segments):
        assert buffer.add(segment)
        starts[number] = sum(earlier.owned for earlier in segments[:number])
    assert buffer.size == steps
    drawn = set()
    for _ in range(12):
        batch = buffer.sample(32, beta=0.5)
        for b in range(32):
            position = starts[int(batch.keys.game[b])] + int(batch.keys.position[b])
            assert_item(batch, b, game, position, stack=stack)
            drawn.add(position)
    assert len(drawn) > 0.9 * steps


def test_a_segment_does_not_change_when_the_game_goes_on() -> None:
    game = make_game(np.random.default_rng(2), 60, end="truncated", frame=(2, 2, 2), dtype=np.uint8)
    recorder = make_recorder(5, stack=3)
    recording = record_game(game, lambda: recorder)
    copies: list[dict[str, Any]] = [
        {name: getattr(segment, name).copy() for name in ("observations", "actions", "policies", "legal")}
        for segment in recording.segments
    ]
    record_game(make_game(np.random.default_rng(3), 60, frame=(2, 2, 2), dtype=np.uint8), lambda: recorder)
    for segment, copy in zip(recording.segments, copies, strict=True):
        for name, array in copy.items():
            np.testing.assert_array_equal(getattr(segment, name), array)


def test_an_unused_recorder_is_empty() -> None:
    assert len(make_recorder(5, stack=1)) == 0
    assert not make_recorder(5, stack=1).segment_ready()
