"""The true game in place of a learned model: what a search, or a measurement of the model, can ask of it."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import numpy as np

from muzero_ray.config.schema import Config
from muzero_ray.envs.atari import AtariEnvironment
from muzero_ray.envs.environment import CheckedEnvironment
from muzero_ray.envs.registry import make_environment
from muzero_ray.inference.engine import InferenceEngine
from muzero_ray.inference.host_latents import HostLatents
from muzero_ray.types import Array, IntArray, NetworkOutput

SEED = 1_000
"""The seed of the first game; the others follow."""

Games = Sequence[CheckedEnvironment]


class TrueGame(HostLatents):
    """What a search asks of a model, answered by the game itself; values and policies are the network's.

    A latent is the number of a node, `[B, 1]`. As in training, a lost life ends what can be earned. Chance on the way
    is drawn anew, so that the search foresees no more than a perfect model would.
    """

    def __init__(self, config: Config, engine: InferenceEngine, channels: int) -> None:
        """channels: of a single frame."""
        super().__init__()
        self._engine, self._channels = engine, channels
        self._emulator = make_environment(config.env)
        self._emulator.reset(SEED)
        self._rng = np.random.default_rng(SEED)
        self._states: list[tuple[Any, Array, bool]] = []
        """State of the game, stacked frames, whether it is over."""

    def root(self, games: Games, observations: Array) -> NetworkOutput:
        """Begin a search in these games."""
        states = [state_of(game) for game in games]
        self._states = [(state, seen.copy(), False) for state, seen in zip(states, observations, strict=True)]
        out = self._engine.initial(observations)
        return NetworkOutput(_numbers(0, len(games)), out.reward, out.value, out.policy_logits)

    def recurrent(self, hidden: Array, actions: IntArray, out: NetworkOutput) -> None:
        """See InferenceEngine."""
        begin, rewards = len(self._states), []
        for number, action in zip(hidden[:, 0].astype(int).tolist(), actions.tolist(), strict=True):
            state, seen, over = self._states[number]
            reward = 0.0
            if not over:
                state, frame, reward, over = self.step(state, action)
                seen = np.concatenate((seen[self._channels :], frame))
            self._states.append((state, seen, over))
            rewards.append(reward)
        new = self._states[begin:]
        answer = self._engine.initial(np.stack([seen for _, seen, _ in new]))
        out.hidden[...] = _numbers(begin, len(new))
        out.reward[...] = rewards
        out.value[...] = np.where([over for *_, over in new], 0.0, answer.value)
        out.policy_logits[...] = answer.policy_logits

    def step(self, state: Any, action: int) -> tuple[Any, Array, float, bool]:
        """A move from `state`: the state after it, the frame, the reward, whether the game (or the life) is over."""
        inner = self._emulator.inner
        if isinstance(inner, AtariEnvironment):
            inner.go_on_from(state)
        else:
            inner = copy.deepcopy(state)
            _reseed(inner, int(self._rng.integers(2**31)))
        step = inner.step(action)
        after = inner.position() if isinstance(inner, AtariEnvironment) else inner
        return after, step.observation, step.reward, step.terminated


def _numbers(begin: int, count: int) -> Array:
    return np.arange(begin, begin + count, dtype=np.float32)[:, None]


def state_of(game: CheckedEnvironment) -> Any:
    """What `TrueGame` goes on from."""
    inner = game.inner
    return inner.position() if isinstance(inner, AtariEnvironment) else copy.deepcopy(inner)


def _reseed(adapter: Any, seed: int) -> None:
    """Chance to come in a gymnasium environment; those of MinAtar have a generator of their own."""
    game = adapter._env.unwrapped
    if hasattr(game, "seed"):
        game.seed(seed)
    else:
        game.np_random = np.random.default_rng(seed)
