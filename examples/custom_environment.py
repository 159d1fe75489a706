"""An environment of one's own, with action masks: `python examples/custom_environment.py`.

Change for an amount is paid in coins of 1, 5, 10 and 25, as few as possible. A coin that is worth more than what is
left must not be paid: `info["action_mask"]` says which ones may. Workers import this module by the name in the id, so
that the environment is registered there, too.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import gymnasium
import numpy as np
from numpy.typing import NDArray

import muzero_ray as mz

COINS = np.array([1, 5, 10, 25])
LARGEST = 40


class Change(gymnasium.Env[NDArray[np.float32], np.int64]):
    """Observation: the amount that is left, as a vector with a single 1. Reward: -1 for each coin."""

    observation_space = gymnasium.spaces.Box(0.0, 1.0, (LARGEST + 1,), np.float32)
    action_space = gymnasium.spaces.Discrete(len(COINS))

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[NDArray[np.float32], dict[str, Any]]:
        super().reset(seed=seed, options=options)
        self.left = int(self.np_random.integers(1, LARGEST + 1))
        return self._seen(), self._info()

    def step(self, action: np.int64) -> tuple[NDArray[np.float32], float, bool, bool, dict[str, Any]]:
        self.left -= int(COINS[action])
        return self._seen(), -1.0, self.left == 0, False, self._info()

    def _seen(self) -> NDArray[np.float32]:
        observation = np.zeros(LARGEST + 1, np.float32)
        observation[self.left] = 1.0
        return observation

    def _info(self) -> dict[str, Any]:
        # A game that is over has no legal action; until then at least one is needed.
        return {"action_mask": (self.left >= COINS).astype(np.int8)}


if "Change-v0" not in gymnasium.registry:
    gymnasium.register("Change-v0", f"{__name__}:Change", max_episode_steps=LARGEST)


def main(settings: Mapping[str, Any] | None = None) -> None:
    """settings: in place of those below, by their dotted names."""
    ours = {"env.id": "custom_environment:Change-v0", "run.minutes": 1}
    run = mz.train("cartpole", {**ours, **(settings or {})}, serial=True)

    agent, env = mz.Agent.load(run), gymnasium.make("custom_environment:Change-v0")
    observation, info = env.reset(seed=3)
    amount, paid, done = int(np.argmax(observation)), [], False
    while not done:
        action = agent.act(observation, info["action_mask"])
        paid.append(int(COINS[action]))
        observation, _, terminated, truncated, info = env.step(action)
        done = terminated or truncated
    print(f"change for {amount}: {paid}")


if __name__ == "__main__":
    main()
