"""An environment of a user's own, from a package outside this project: it trains, and when it breaks one line says how.

`launch.py` is started as people start it, with nothing but PYTHONPATH telling it where the package is.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from muzero_ray.runs.checkpoint import load_checkpoint
from tests.patience import PATIENCE
from tests.small_runs import rows

ROOT = Path(__file__).resolve().parents[1]
MOVES = 8

PACKAGE = f'''
import gymnasium
import numpy as np


class Lights(gymnasium.Env):
    """Press the lit one of three lights: a point each time, {MOVES} moves a game. `fault` breaks the third move."""

    def __init__(self, fault="none"):
        self.observation_space = gymnasium.spaces.Box(0.0, 1.0, (4,), np.float32)
        self.action_space = gymnasium.spaces.Discrete(3)
        self.fault = fault

    def _look(self):
        self.lit = int(self.np_random.integers(3))
        observation = np.zeros(4, np.float32)
        observation[self.lit], observation[3] = 1.0, self.moves / {MOVES}
        return observation

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.moves = 0
        return self._look(), {{}}

    def step(self, action):
        self.moves += 1
        reward = float(action == self.lit)
        observation, done = self._look(), self.moves == {MOVES}
        if self.moves == 3:
            if self.fault == "dtype":
                observation = observation.astype(np.float64)
            if self.fault == "shape":
                observation = observation[:2]
            if self.fault == "nan":
                observation[1] = np.nan
            if self.fault == "reward":
                reward = np.inf
            if self.fault == "done":
                done = 0
            if self.fault == "raise":
                raise KeyError("the lamp fell off")
        return observation, reward, done, False, {{}}


gymnasium.register("MyEnv-v0", entry_point=Lights)
'''

EXPECTED_AND_GOT = {
    "dtype": "wrong observation: expected float32 (4,) as its space says, got float64 (4,)",
    "shape": "wrong observation: expected float32 (4,) as its space says, got float32 (2,)",
    "nan": "observation is not finite: expected finite numbers, got nan at [1]",
    "reward": "reward is not finite: expected a finite number, got inf",
    "done": "wrong `terminated`: expected True or False, got int 0",
    "raise": "step raised an exception: expected none, got KeyError: 'the lamp fell off'",
}

IN_A_ROW = ". That was fault number 6 in a row"

TINY = shlex.split(
    "--env.id my_pkg:MyEnv-v0 --serial --iterations 12 --simulations 3 --run.wandb disabled --replay.min-size 32 "
    "--learner.batch-size 8 --network.hidden 8 --network.layers 8 --network.head-layers 8 --actors.envs-per-actor 2 "
    "--actors.rollout-steps 20 --run.log-steps 6 --evaluation.interval-steps 1000 --evaluation.final-episodes 2"
)

# All broken variants in one process, each as its own call of the program: starting Python costs more than a run does.
MAIN_FOR_EACH = """
import contextlib, io, json, sys
from muzero_ray import launch

def outcome(fault):
    err = io.StringIO()
    with contextlib.redirect_stderr(err), contextlib.redirect_stdout(io.StringIO()):
        code = launch.main([*sys.argv[2:], "--run.name", fault, "--env.kwargs", f"fault={fault}"])
    return code, err.getvalue()

print(json.dumps({fault: outcome(fault) for fault in json.loads(sys.argv[1])}))
"""


@pytest.fixture
def elsewhere(tmp_path: Path) -> Path:
    """A working directory with the user's package beside it."""
    package = tmp_path / "theirs" / "my_pkg"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text(PACKAGE)
    folder = tmp_path / "work"
    folder.mkdir()
    return folder


def run_python(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    paths = [str(folder.parent / "theirs"), str(ROOT)]
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
    command = [sys.executable, *arguments]
    return subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, timeout=PATIENCE, check=False)


def test_a_users_own_environment_trains(elsewhere: Path) -> None:
    result = run_python(elsewhere, str(ROOT / "launch.py"), "train", "cartpole", *TINY, "--run.name", "mine")
    assert result.returncode == 0, result.stderr
    run = elsewhere / "runs" / "mine"  # below the working directory, not in the checkout
    assert load_checkpoint(run).step == 12
    last = rows(run)[-1]
    assert last["learner_steps"] == 12
    assert last["eval/length_mean"] == MOVES
    assert 0.0 <= last["eval/return_mean"] <= MOVES
    assert re.search(r"trained: return_mean=\d", result.stdout)


def test_every_broken_contract_ends_in_one_line_and_exit_code_3(elsewhere: Path) -> None:
    result = run_python(elsewhere, "-c", MAIN_FOR_EACH, json.dumps(list(EXPECTED_AND_GOT)), "train", "cartpole", *TINY)
    assert result.returncode == 0, result.stderr
    outcomes = json.loads(result.stdout)
    assert set(outcomes) == set(EXPECTED_AND_GOT)
    for fault, (code, err) in outcomes.items():
        assert code == 3, err
        place, _, what = err.partition("): ")
        assert re.fullmatch(r"error: environment my_pkg:MyEnv-v0 \(seed \d+, step 3", place), err
        assert what == f"{EXPECTED_AND_GOT[fault]}{IN_A_ROW}\n", fault


def test_the_program_itself_exits_with_3_and_no_traceback(elsewhere: Path) -> None:
    result = run_python(elsewhere, str(ROOT / "launch.py"), "train", "cartpole", *TINY, "--env.kwargs", "fault=raise")
    assert result.returncode == 3
    assert "Traceback" not in result.stdout + result.stderr
    assert result.stderr.splitlines()[-1].startswith("error: environment my_pkg:MyEnv-v0 (seed ")
    assert result.stderr.rstrip().endswith(EXPECTED_AND_GOT["raise"] + IN_A_ROW)
