"""Sums over the rounds of one call to self-play, from which its statistics are made."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from typing import Any

import numpy as np

from muzero_ray.acting.rollout_stats import Episode, RolloutStats
from muzero_ray.types import BoolArray, FloatArray, NetworkOutput, SearchResult, WeightsVersion


class RolloutAccumulator:
    """Sums over the rounds of one `play` call."""

    def __init__(self) -> None:
        self.transitions = 0
        self.inserted = 0
        self.rounds = 0
        self.episodes: list[Episode] = []
        self._search_seconds = 0.0
        self._depths: list[FloatArray] = []
        self._logits: list[FloatArray] = []
        self._targets: list[FloatArray] = []

    def searched(self, seconds: float, root: NetworkOutput, result: SearchResult, legal: BoolArray) -> None:
        self._search_seconds += seconds
        self._depths.append(result.depth)
        self._logits.append(np.where(legal, root.policy_logits, -np.inf))
        self._targets.append(result.policy_target)

    def stats(
        self, *, seconds: float, simulations: int, version: WeightsVersion, faults: tuple[str, ...], playing_for: float
    ) -> RolloutStats:
        depth, entropy, kl = self._means() if self._targets else (0.0, 0.0, 0.0)
        return RolloutStats(
            transitions=self.transitions,
            inserted=self.inserted,
            episodes=tuple(self.episodes),
            seconds=seconds,
            search_seconds=self._search_seconds,
            simulations=simulations,
            depth=depth,
            root_entropy=entropy,
            kl_prior=kl,
            version=version,
            faults=faults,
            playing_for=playing_for,
        )

    def state(self) -> dict[str, Any]:
        """JSON-able, for a call that was interrupted and goes on after a resume. Clocks are left out."""
        return {
            "transitions": self.transitions,
            "inserted": self.inserted,
            "rounds": self.rounds,
            "episodes": self.episodes,
            "searches": [_packed(arrays) for arrays in (self._depths, self._logits, self._targets)],
        }

    @classmethod
    def restored(cls, state: dict[str, Any]) -> RolloutAccumulator:
        """Inverse of `state`."""
        totals = cls()
        totals.transitions, totals.inserted = int(state["transitions"]), int(state["inserted"])
        totals.rounds = int(state["rounds"])
        totals.episodes = [Episode(float(score), int(length)) for score, length in state["episodes"]]
        totals._depths, totals._logits, totals._targets = (_unpacked(packed) for packed in state["searches"])
        return totals

    def _means(self) -> tuple[float, float, float]:
        """Depth, entropy of the policy targets, and their KL divergence from the priors, over all searches.

        Taken once per call: a dozen numpy functions on a few rows cost as much as an environment's step.
        """
        target, logits = np.concatenate(self._targets), np.concatenate(self._logits)
        log_target = np.log(np.maximum(target, 1e-9))
        shifted = logits - logits.max(axis=1, keepdims=True)
        log_prior = np.maximum(shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True)), -50.0)
        entropy = -(target * log_target).sum(axis=1).mean()
        kl = (target * (log_target - log_prior)).sum(axis=1).mean()
        return float(np.concatenate(self._depths).mean()), float(entropy), float(kl)


def _packed(arrays: Sequence[FloatArray]) -> tuple[str, list[int]]:
    """Arrays of several searches, one after another, as text, and their shape."""
    joined = np.concatenate(arrays) if arrays else np.zeros(0, np.float32)
    return base64.b64encode(joined.astype(np.float32).tobytes()).decode(), list(joined.shape)


def _unpacked(packed: Sequence[Any]) -> list[FloatArray]:
    text, shape = packed
    joined = np.frombuffer(base64.b64decode(text), np.float32).reshape(shape)
    return [joined] if len(joined) else []
