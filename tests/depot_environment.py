"""`tests.depot_environment:Depot-v0`: an inventory. Order 0 to 4 lots a day under random demand, 60 days a game."""

# mypy: ignore-errors
# ruff: noqa: ARG002, RUF012
import gymnasium as gym
import numpy as np
from gymnasium import spaces


class DepotEnv(gym.Env):
    metadata = {"render_modes": []}

    def __init__(self, capacity: int = 12, lots: int = 5, render_mode=None):
        self.capacity, self.lots = capacity, lots
        self.observation_space = spaces.Box(0.0, np.inf, (5,), np.float64)
        self.action_space = spaces.Discrete(lots)
        self.render_mode = render_mode

    def _obs(self):
        return np.array([self.stock, self.on_way, self.day % 7, self.last, self.cash_trend], dtype=np.float64)

    def _info(self):
        free = self.capacity - self.stock - self.on_way
        mask = np.array([a * 2 <= free for a in range(self.lots)], dtype=np.int8)
        mask[0] = 1
        return {"action_mask": mask}

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.stock, self.on_way, self.day, self.last, self.cash_trend = 6, 0, 0, 0, 0.0
        return self._obs(), self._info()

    def step(self, action):
        assert self._info()["action_mask"][action], "illegal order"
        return self._order(int(action))

    def _order(self, lots):
        demand = int(self.np_random.poisson(2 + 2 * (self.day % 7 in (4, 5))))
        sold = min(self.stock, demand)
        reward = 3.0 * sold - 0.3 * self.stock - 1.0 * lots - 2.0 * (demand - sold)
        self.stock = self.stock - sold + self.on_way
        self.on_way = 2 * lots
        self.day += 1
        self.last = demand
        return self._obs(), reward, False, False, self._info()


gym.register("Depot-v0", entry_point="tests.depot_environment:DepotEnv", max_episode_steps=60)


class DictEnv(DepotEnv):
    def __init__(self, **kw):
        super().__init__(**kw)
        self.observation_space = spaces.Dict({"v": spaces.Box(0, np.inf, (5,), np.float64)})

    def _obs(self):
        return {"v": super()._obs()}


class MultiEnv(DepotEnv):
    """Two decisions a day: lots (0..2) and whether to order a double rush (0, 1)."""

    def __init__(self, **kw):
        super().__init__(**kw)
        self.action_space = spaces.MultiDiscrete([3, 2])

    def _info(self):
        return {}

    def step(self, action):
        return self._order(
            min(int(action[0]) + 2 * int(action[1]), max(0, (self.capacity - self.stock - self.on_way) // 2))
        )


gym.register("DepotDict-v0", entry_point="tests.depot_environment:DictEnv", max_episode_steps=60)
gym.register("DepotMulti-v0", entry_point="tests.depot_environment:MultiEnv", max_episode_steps=60)
