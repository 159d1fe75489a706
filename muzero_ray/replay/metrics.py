"""The `replay/` group of a row of metrics."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from muzero_ray.replay.buffer import ReplayBuffer
from muzero_ray.types import MetricKind

METRICS: Final[Mapping[str, MetricKind]] = {
    "replay/size": "last",
    "replay/bytes": "last",
    "replay/games": "last",
    "replay/samples_per_insert": "last",
    "replay/target_age": "last",
    "replay/priority_max": "last",
}
"""All of replay; `samples_per_insert` is counted by the rate limiter."""


def replay_metrics(buffer: ReplayBuffer, learner_step: int) -> dict[str, float]:
    """The `replay/` group of a metrics row, as far as the buffer knows it."""
    return {
        "replay/size": buffer.size,
        "replay/bytes": buffer.bytes,
        "replay/games": buffer.games,
        "replay/target_age": buffer.target_age(learner_step),
        "replay/priority_max": buffer.priority_max,
    }


def joint_replay_metrics(shards: Sequence[dict[str, float]]) -> dict[str, float]:
    """The `replay_metrics` of all shards as of one replay."""
    joint = {name: sum(shard[name] for shard in shards) for name in shards[0]}
    ages = sum(shard["replay/size"] * shard["replay/target_age"] for shard in shards)
    joint["replay/target_age"] = ages / max(joint["replay/size"], 1)
    joint["replay/priority_max"] = max(shard["replay/priority_max"] for shard in shards)
    return joint
