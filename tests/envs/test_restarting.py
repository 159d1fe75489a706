"""Broken environments: replaced, counted, and at last raised; and what is known of those that never come back."""

from __future__ import annotations

import multiprocessing
import os
import sys
import time
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest

import muzero_ray.envs.subprocess_probe as subprocess_probe
from muzero_ray.config.schema import EnvConfig
from muzero_ray.envs.crash_note import CrashNote, read_crash_note
from muzero_ray.envs.environment import Environment
from muzero_ray.envs.registry import make_environment
from muzero_ray.envs.restarting import MAX_FAULTS, RestartingEnvironment
from muzero_ray.errors import EnvironmentFault
from tests.patience import PATIENCE


class Ends(gymnasium.Env[np.ndarray, int]):
    """What `how` says happens in its first reset, or in its second step."""

    def __init__(self, how: str = "none", when: str = "step") -> None:
        self.observation_space = gymnasium.spaces.Box(0.0, 1.0, (1,), np.float32)
        self.action_space = gymnasium.spaces.Discrete(2)
        self._how, self._when, self._steps = how, when, 0

    def _end(self) -> None:
        if self._how == "exit":
            os._exit(7)
        if self._how == "sys.exit":
            sys.exit(0)
        if self._how == "hang":
            time.sleep(600)
        if self._how == "asked":
            error = SystemExit(1)
            error.ray_terminate_msg = "The process receives a SIGTERM."  # type: ignore[attr-defined]
            raise error

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, Any]:
        super().reset(seed=seed, options=options)
        if self._when == "reset":
            self._end()
        return np.zeros(1, np.float32), {}

    def step(self, action: int) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        self._steps += 1
        if self._steps == 2:
            self._end()
        return np.zeros(1, np.float32), float(action), False, False, {}


if "Ends-v0" not in gymnasium.registry:
    gymnasium.register("Ends-v0", entry_point=Ends)


def ends(how: str, when: str = "step") -> EnvConfig:
    return EnvConfig(id=f"{__name__}:Ends-v0", kwargs={"how": how, "when": when})


def test_one_that_breaks_is_replaced_until_it_is_too_often_in_a_row() -> None:
    made: list[Environment] = []

    def make() -> Environment:
        made.append(make_environment(ends("none")))
        return made[-1]

    environment = RestartingEnvironment(make(), make)
    fault = EnvironmentFault("environment X (seed 1, step 2): no")
    for _ in range(2):
        for count in range(MAX_FAULTS):
            assert environment.faults_in_a_row == count
            environment.replace(fault)
            assert environment.current is made[-1]
        environment.forget_faults()
    assert len(made) == 1 + 2 * MAX_FAULTS
    for _ in range(MAX_FAULTS):
        environment.replace(fault)
    with pytest.raises(EnvironmentFault, match=r"^environment X \(seed 1, step 2\): no\. That was fault number 6"):
        environment.replace(fault)


def test_without_a_maker_the_first_fault_is_the_end() -> None:
    fault = EnvironmentFault("no")
    with pytest.raises(EnvironmentFault) as caught:
        RestartingEnvironment(make_environment(ends("none")), None).replace(fault)
    assert caught.value is fault


def test_an_exit_is_a_fault_but_not_the_one_that_this_process_was_asked_for() -> None:
    environment = make_environment(ends("sys.exit"))
    environment.reset(3)
    environment.step(0)
    with pytest.raises(EnvironmentFault, match=r"seed 3, step 2.*SystemExit: 0"):
        environment.step(0)
    environment = make_environment(ends("asked"))
    environment.reset(3)
    environment.step(0)
    with pytest.raises(SystemExit):
        environment.step(0)


def _play_to_the_end(path: Path, how: str) -> None:
    environment = make_environment(ends(how), note=CrashNote(path, "Ends-v0"))
    environment.reset(41)
    for _ in range(3):
        environment.step(1)


def test_a_note_tells_which_call_a_dead_process_was_in(tmp_path: Path) -> None:
    process = multiprocessing.get_context("spawn").Process(target=_play_to_the_end, args=(tmp_path / "note", "exit"))
    process.start()
    process.join(PATIENCE)
    assert process.exitcode == 7
    assert read_crash_note(tmp_path / "note") == "environment Ends-v0 (seed 41, step 2): step has not returned"


def test_a_note_tells_of_no_call_between_two(tmp_path: Path) -> None:
    path = tmp_path / "note"
    assert read_crash_note(path) is None
    note = CrashNote(path, "E")
    assert read_crash_note(path) is None
    note.enter("making it", None, 0)
    assert read_crash_note(path) == "environment E (before its first game): making it has not returned"
    note.leave()
    assert read_crash_note(path) is None
    environment = make_environment(ends("sys.exit"), note=note)
    environment.reset(1)
    environment.step(0)
    with pytest.raises(EnvironmentFault):
        environment.step(0)
    assert read_crash_note(path) is None  # it was dealt with
    with pytest.raises(FileExistsError):
        CrashNote(path, "E")


def test_the_first_look_is_survived(monkeypatch: pytest.MonkeyPatch) -> None:
    assert subprocess_probe.spec_in_subprocess(ends("none")) == subprocess_probe.spec_of(ends("none"))
    with pytest.raises(EnvironmentFault, match=r"Ends-v0 \(seed 0, step 0\).*its process ended with 7"):
        subprocess_probe.spec_in_subprocess(ends("exit", "reset"))
    with pytest.raises(EnvironmentFault, match=r"SystemExit: 0.*number 6 in a row"):
        subprocess_probe.spec_in_subprocess(ends("sys.exit", "reset"))
    monkeypatch.setattr(subprocess_probe, "SECONDS", 8.0)
    with pytest.raises(EnvironmentFault, match="nothing came back within 8 s"):
        subprocess_probe.spec_in_subprocess(ends("hang", "reset"))
