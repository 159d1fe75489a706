"""Environments of a user's own that break. Copied into a folder on PYTHONPATH: nothing here is the project's.

`chaos_envs:Fault-v0` with `fault` for what goes wrong at the third step (or the third reset of a process), each time;
`chaos_envs:Crashing-v0`, a CartPole that raises now and then.
"""

import ctypes
import os
import sys
import time

import gymnasium
import numpy as np
from gymnasium.envs.classic_control.cartpole import CartPoleEnv

MOVES = 8

HELD = []
"""What a leak never lets go of."""


class Fault(gymnasium.Env):
    """Press the lit one of three lights, a few moves a game."""

    resets = 0

    def __init__(self, fault="none", mb=0.0):
        self.observation_space = gymnasium.spaces.Box(0.0, 1.0, (4,), np.float32)
        self.action_space = gymnasium.spaces.Discrete(3)
        self.fault, self.mb = fault, mb

    def look(self):
        self.lit = int(self.np_random.integers(3))
        observation = np.zeros(4, np.float32)
        observation[self.lit], observation[3] = 1.0, self.moves / MOVES
        return observation

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed, options=options)
        self.moves = 0
        Fault.resets += 1
        if Fault.resets > 2:
            if self.fault == "reset raises":
                raise OSError("no such level")
            if self.fault == "reset hangs":
                time.sleep(10_000)
        return self.look(), {}

    def step(self, action):
        self.moves += 1
        answer = [self.look(), float(action == self.lit), self.moves == MOVES, False, {}]
        if self.mb:
            HELD.append(np.ones(int(self.mb * 2**17)))
        if self.moves == 3:
            if self.fault in ENDS:
                ENDS[self.fault]()
            if self.fault in WRONG:
                part, spoil = WRONG[self.fault]
                answer[part] = spoil(answer[part])
        return tuple(answer)


def raises():
    raise KeyError("the lamp fell off")


ENDS = {
    "step raises": raises,
    "step hangs": lambda: time.sleep(10_000),
    "sys.exit in step": lambda: sys.exit(0),
    "os._exit in step": lambda: os._exit(0),
    "segfault in step": lambda: ctypes.string_at(0),
}
"""What never comes back from a step."""

WRONG = {
    "observation NaN": (0, lambda observation: observation * np.float32(np.nan)),
    "observation of another shape": (0, lambda observation: observation[:2]),
    "observation of another type": (0, lambda observation: observation.astype(np.float64)),
    "reward NaN": (1, lambda _: np.nan),
    "reward None": (1, lambda _: None),
    "terminated no bool": (2, int),
}
"""Rubbish that does: which part of the answer it is, and what becomes of that."""


class Crashing(CartPoleEnv):
    """The task itself, and chance of its own: the same game may crash or not."""

    def __init__(self, step=0.0005, reset=0.005, **kwargs):
        super().__init__(**kwargs)
        self.chance, self.at_step, self.at_reset = np.random.default_rng(), step, reset

    def reset(self, *, seed=None, options=None):
        if self.chance.random() < self.at_reset:
            raise RuntimeError("crashed in reset")
        return super().reset(seed=seed, options=options)

    def step(self, action):
        if self.chance.random() < self.at_step:
            raise RuntimeError("crashed in step")
        return super().step(action)


gymnasium.register("Fault-v0", entry_point=Fault)
gymnasium.register("Crashing-v0", entry_point=Crashing, max_episode_steps=500)
