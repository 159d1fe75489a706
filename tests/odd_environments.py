"""`tests.odd_environments:NAME-v0`: small environments, each with one oddity that a real one had."""

# mypy: ignore-errors
# ruff: noqa: ARG002, RUF012, NPY002
import random
import socket

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from gymnasium.envs.registration import register


class Bandit(gym.Env):
    """Context bandit: the right action is the index of the only 1 of the observation. L steps a game."""

    metadata = {"render_modes": ["rgb_array"], "render_fps": 4}

    def __init__(
        self,
        n=3,
        length=10,
        dtype="float32",
        scale=1.0,
        shift=0.0,
        reward=1.0,
        start=0,
        low=0.0,
        high=1.0,
        reward_type="float",
        term_type="bool",
        render_mode=None,
    ):
        self.n, self.length, self.scale, self.shift, self.reward = n, length, scale, shift, reward
        self.dtype = np.dtype(dtype)
        self.reward_type, self.term_type = reward_type, term_type
        self.render_mode = render_mode
        self.observation_space = spaces.Box(min(low, shift), max(high, shift + scale), (n,), self.dtype)
        self.action_space = spaces.Discrete(n, start=start)
        self.start = start

    def _obs(self):
        self.c = int(self.np_random.integers(self.n))
        o = np.zeros(self.n)
        o[self.c] = 1
        return (o * self.scale + self.shift).astype(self.dtype)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.t = 0
        return self._obs(), {}

    def step(self, a):
        assert self.action_space.contains(a), (a, type(a))
        r = self.reward if a - self.start == self.c else 0.0
        self.t += 1
        if self.reward_type == "array1":
            r = np.array([r], np.float32)
        elif self.reward_type == "np64":
            r = np.float64(r)
        elif self.reward_type == "tensor":
            import torch

            r = torch.tensor(r)
        done = self.t >= self.length
        if self.term_type == "int":
            done = int(done)
        return self._obs(), r, done, False, {}

    def render(self):
        return np.zeros((32, 32, 3), np.uint8)


class Image(gym.Env):
    """A plane of C that is lit tells the action; layout says where channels are."""

    def __init__(self, c=4, h=8, w=8, layout="chw", dtype="uint8", hi=255, length=10):
        self.c, self.h, self.w, self.layout, self.length = c, h, w, layout, length
        shape = {"chw": (c, h, w), "hwc": (h, w, c), "hw": (h, w)}[layout]
        self.hi, self.dt = hi, np.dtype(dtype)
        self.observation_space = spaces.Box(0, hi, shape, self.dt)
        self.action_space = spaces.Discrete(4)

    def _obs(self):
        self.k = int(self.np_random.integers(4))
        o = np.zeros((self.c, self.h, self.w))
        if self.layout == "hw":
            o[0, :, self.k :: 4] = 1
            return (o[0] * self.hi).astype(self.dt)
        o[self.k] = 1
        if self.layout == "hwc":
            o = np.moveaxis(o, 0, -1)
        return (o * self.hi).astype(self.dt)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.t = 0
        return self._obs(), {}

    def step(self, a):
        r = float(a == self.k)
        self.t += 1
        return self._obs(), r, self.t >= self.length, False, {}


class Endless(Bandit):
    """Never ends by itself."""

    def step(self, a):
        o, r, _, _, i = super().step(a)
        return o, r, False, False, i


class GoalOnly(gym.Env):
    """Ends only if action 1 is taken; action 0 stays for ever (a greedy policy of 0 never ends)."""

    observation_space = spaces.Box(-1, 1, (2,), np.float32)
    action_space = spaces.Discrete(2)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return np.zeros(2, np.float32), {}

    def step(self, a):
        return np.zeros(2, np.float32), (-1.0 if a == 1 else 0.0), a == 1, False, {}


class Masked(gym.Env):
    """Random masks. kind: how the mask is given."""

    def __init__(self, n=4, length=8, kind="int8"):
        self.n, self.length, self.kind = n, length, kind
        self.observation_space = spaces.Box(0, 1, (n,), np.float32)
        self.action_space = spaces.Discrete(n)

    def _o(self):
        m = np.zeros(self.n, np.int8)
        m[self.np_random.choice(self.n, self.np_random.integers(1, self.n + 1), replace=False)] = 1
        self.m = m
        i = {
            "int8": m,
            "bool": m.astype(bool),
            "float": m.astype(np.float32),
            "list": m.tolist(),
            "indices": np.flatnonzero(m),
            "none": None,
        }[self.kind]
        info = {"action_mask": i}
        return m.astype(np.float32), info

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.t = 0
        return self._o()

    def step(self, a):
        assert self.m[a], f"illegal {a} in {self.m}"
        right = a == np.flatnonzero(self.m)[0]
        self.t += 1
        o, i = self._o()
        done = self.t >= self.length
        if done and self.kind == "int8":
            i = {"action_mask": np.zeros(self.n, np.int8)}
        return o, float(right), done, False, i


class MaskedTrunc(Masked):
    """At the time limit (truncated) the mask is all zeros."""

    def step(self, a):
        o, r, d, _, i = super().step(a)
        return o, r, False, d, i


class OnlyOne(Bandit):
    """Like a game server: one instance at a time on this machine."""

    def __init__(self, port=45871, **k):
        super().__init__(**k)
        self.s = socket.socket()
        self.s.bind(("127.0.0.1", port))
        self.s.listen()

    def close(self):
        self.s.close()


class GlobalRandom(Bandit):
    """Draws from numpy's and Python's global generators, as many home-made environments do."""

    def _obs(self):
        self.c = int((np.random.randint(self.n) + random.randrange(self.n)) % self.n)
        o = np.zeros(self.n)
        o[self.c] = 1
        return o.astype(self.dtype)


class Nested(Bandit):
    """Wants a dict and a list, as highway-env's config and FrozenLake's desc do."""

    def __init__(self, config=None, desc=None, **k):
        super().__init__(**k)
        self.config, self.desc = config or {}, desc


class OldApi(Bandit):
    def reset(self, *, seed=None, options=None):
        return super().reset(seed=seed)[0]

    def step(self, a):
        o, r, d, _, i = super().step(a)
        return o, r, d, i


class Chatty(Bandit):
    """Prints at every step."""

    def step(self, a):
        print("env says hello", flush=True)
        return super().step(a)


class LyingBounds(Bandit):
    """Declares Box(0, 1) and shows something else, as many home-made environments do."""

    def __init__(self, scale=1.0, shift=1000.0, **k):
        super().__init__(scale=scale, shift=shift, **k)
        self.observation_space = spaces.Box(0.0, 1.0, (self.n,), self.dtype)


class Drift(Bandit):
    """Observation leaves its declared bounds, and is float64 though float32 is declared, if asked."""

    def __init__(self, wrong=False, **k):
        super().__init__(**k)
        self.wrong = wrong

    def _obs(self):
        o = super()._obs() * 7
        return o.astype(np.float64) if self.wrong else o


class DictObs(Bandit):
    def __init__(self, **k):
        super().__init__(**k)
        self.observation_space = spaces.Dict(
            {"observation": self.observation_space, "action_mask": spaces.Box(0, 1, (self.n,), np.int8)}
        )

    def _obs(self):
        return {"observation": super()._obs(), "action_mask": np.ones(self.n, np.int8)}


class DiscreteObs(gym.Env):
    observation_space = spaces.Discrete(5)
    action_space = spaces.Discrete(2)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return 0, {}

    def step(self, a):
        return 0, 1.0, True, False, {}


class MultiDisc(Bandit):
    """Two parts of an action, [i, j]; right is 3 i + j = the index of the 1 among six."""

    def __init__(self, **k):
        super().__init__(n=6, **k)
        self.action_space = spaces.MultiDiscrete([2, 3])

    def step(self, a):
        right = 3 * int(a[0]) + int(a[1]) == self.c
        self.t += 1
        return self._obs(), self.reward if right else 0.0, self.t >= self.length, False, {}


for name, cls, kw in [
    ("Bandit", Bandit, {}),
    ("Image", Image, {}),
    ("Endless", Endless, {}),
    ("GoalOnly", GoalOnly, {}),
    ("Masked", Masked, {}),
    ("MaskedTrunc", MaskedTrunc, {}),
    ("OnlyOne", OnlyOne, {}),
    ("GlobalRandom", GlobalRandom, {}),
    ("Nested", Nested, {}),
    ("OldApi", OldApi, {}),
    ("Chatty", Chatty, {}),
    ("Drift", Drift, {}),
    ("DictObs", DictObs, {}),
    ("DiscreteObs", DiscreteObs, {}),
    ("MultiDisc", MultiDisc, {}),
    ("LyingBounds", LyingBounds, {}),
]:
    register(
        id=f"{name}-v0",
        entry_point=f"tests.odd_environments:{cls.__name__}",
        kwargs=kw,
        disable_env_checker=True,
        order_enforce=False,
    )
