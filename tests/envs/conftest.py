"""A user's own package with environments that behave, and that misbehave in every way the boundary must catch."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import gymnasium
import pytest

PACKAGE = '''
import gymnasium
import numpy as np


class Walk(gymnasium.Env):
    """Counts its steps in a float32 (3,) vector; `fault` goes wrong at step 2."""

    metadata = {"render_modes": []}

    def __init__(self, fault="", low=0, n=3):
        self.observation_space = gymnasium.spaces.Box(-100, 100, (3,), np.float32)
        self.action_space = gymnasium.spaces.Discrete(n, start=low)
        self.fault, self.buffer = fault, np.zeros(3, np.float32)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.t = 0
        self.buffer[:] = 0
        if self.fault == "reset":
            return self.buffer
        if self.fault == "reset raises":
            raise RuntimeError("no board")
        return self.buffer, {}

    def step(self, action):
        self.t += 1
        self.buffer[:] = self.t, action, 0
        answer = [self.buffer, 1.0, self.t >= 10, False, {}]
        if self.t < 2:
            return tuple(answer)
        obs = np.array(self.buffer)
        changes = {
            "dtype": (0, obs.astype(np.float64)),
            "shape": (0, obs[:2]),
            "list": (0, obs.tolist()),
            "nan": (0, np.array([0, np.nan, 0], np.float32)),
            "inf": (0, np.array([0, 0, -np.inf], np.float32)),
            "reward nan": (1, float("nan")),
            "reward inf": (1, np.float32("inf")),
            "reward text": (1, "one"),
            "reward array": (1, np.ones(2)),
            "reward none": (1, None),
            "done int": (2, 1),
            "truncated none": (3, None),
            "info": (4, None),
            "mask shape": (4, {"action_mask": np.ones(2, np.int8)}),
            "mask empty": (4, {"action_mask": np.zeros(3, np.int8)}),
            "mask": (4, {"action_mask": np.array([0, 1, 0], np.int8)}),
            "reward 0-d": (1, np.array(2.5)),
            "noise": (0, np.random.rand(3).astype(np.float32)),
        }
        if self.fault == "raises":
            raise ZeroDivisionError("lives / 0")
        if self.fault == "four":
            return tuple(answer[:3]) + ({},)
        if self.fault in changes:
            index, value = changes[self.fault]
            answer[index] = value
        return tuple(answer)


class Picture(gymnasium.Env):
    """Observation of any shape and dtype, each element its own index."""

    def __init__(self, shape="2,3", dtype="uint8"):
        shape = tuple(int(n) for n in shape.split(","))
        self.observation_space = gymnasium.spaces.Box(0, 1 if dtype == "bool" else 255, shape, np.dtype(dtype))
        self.action_space = gymnasium.spaces.Discrete(2)
        self.value = np.arange(np.prod(shape)).reshape(shape).astype(dtype)

    def reset(self, *, seed=None, options=None):
        return self.value, {}

    def step(self, action):
        return self.value, 0.0, False, False, {}


gymnasium.register("Walk-v0", entry_point=Walk)
gymnasium.register("Picture-v0", entry_point=Picture)
'''


@pytest.fixture
def user_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Name of an importable package that registers Walk-v0 and Picture-v0; gone again after the test."""
    folder = tmp_path / "their_games"
    folder.mkdir()
    (folder / "__init__.py").write_text(PACKAGE)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield "their_games"
    sys.modules.pop("their_games", None)
    for name in ("Walk-v0", "Picture-v0"):
        gymnasium.registry.pop(name, None)
