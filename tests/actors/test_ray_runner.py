"""A run whose Ray dies: what is started anew, how often, and what a person is told."""

from __future__ import annotations

import os
import random
import signal
from pathlib import Path
from typing import Any

import pytest
import safetensors.numpy

from chaos import ray_processes
from chaos.joined import WitnessedRun
from chaos.ray_processes import VICTIMS, find, one, train
from chaos.witness import acknowledged
from muzero_ray.actors import ray_runner
from muzero_ray.actors.ray_runner import MAX_LOSSES, RayRunner
from muzero_ray.actors.ray_watch import RayLost, keep_sigterm_handler
from muzero_ray.errors import ConfigError, MuZeroRayError
from muzero_ray.runs.checkpoint import load_checkpoint
from muzero_ray.runs.replay_archive import ARRAYS_FILE
from muzero_ray.types import GameId
from tests.patience import PATIENCE


class FakeRunState:
    resumes = 0
    learner_steps = 0


class Output:
    resume_hint = "go on with: python launch.py resume runs/one"

    def __init__(self) -> None:
        self.said: list[str] = []

    def message(self, text: str) -> None:
        self.said.append(text)


class OneSupervisor:
    """Does what `acts` says, one after another: raise, or return."""

    replay_is_loaded = True

    def __init__(self, acts: list[Any], recover: bool, did: list[str]) -> None:
        self._acts, self._did = acts, did
        did.append(f"start recover={recover}")

    def run(self) -> bool:
        act = self._acts.pop(0)
        if isinstance(act, Exception):
            raise act
        self._did.append("run")
        return bool(act)

    def restore(self) -> None:
        self._did.append("restore")

    def request_stop(self) -> None:
        self._did.append("stop")


@pytest.fixture
def private(monkeypatch: pytest.MonkeyPatch) -> None:
    """A private Ray that is never there; nothing pauses."""
    monkeypatch.setattr(ray_runner, "is_private", lambda: True)
    monkeypatch.setattr(ray_runner, "loss", lambda: None)
    monkeypatch.setattr(ray_runner, "disconnect", lambda: None)
    monkeypatch.setattr(ray_runner, "backoff", lambda _: 0.0)
    monkeypatch.setattr(OneSupervisor, "run", OneSupervisor.run)
    monkeypatch.setattr(ray_runner, "Supervisor", OneSupervisor)


def make(acts: list[Any], connect: Any = None) -> tuple[RayRunner, FakeRunState, Output, list[str]]:
    did: list[str] = []
    run_state, output = FakeRunState(), Output()
    runner = RayRunner(
        lambda recover: OneSupervisor(acts, recover, did),  # type: ignore[arg-type, return-value]
        connect or (lambda: did.append("connect")),
        run_state,  # type: ignore[arg-type]
        output,  # type: ignore[arg-type]
    )
    return runner, run_state, output, did


@pytest.mark.usefixtures("private")
def test_a_private_ray_that_is_lost_is_started_anew_and_its_workers_have_incarnations_of_their_own() -> None:
    runner, run_state, output, did = make([RayLost("Ray's own raylet died"), True])
    assert runner.run()
    assert did == ["start recover=False", "connect", "start recover=True", "restore", "run"]
    assert run_state.resumes == 1
    assert "raylet died; starting Ray anew" in output.said[0]


@pytest.mark.usefixtures("private")
def test_whatever_goes_wrong_while_a_process_of_ray_is_dead_is_its_doing(monkeypatch: pytest.MonkeyPatch) -> None:
    runner, *_ = make([MuZeroRayError("params failed 6 times in a row"), True])
    monkeypatch.setattr(ray_runner, "loss", lambda: "Ray's own gcs_server died")
    assert runner.run()
    runner, *_ = make([ConfigError("a setting")])
    monkeypatch.setattr(ray_runner, "loss", lambda: None)
    with pytest.raises(ConfigError, match="a setting"):
        runner.run()


@pytest.mark.usefixtures("private")
def test_a_ray_that_is_lost_again_and_again_without_progress_ends_the_run_with_the_way_to_go_on() -> None:
    runner, _, output, did = make([RayLost("its raylet died")] * (MAX_LOSSES + 1))
    with pytest.raises(MuZeroRayError, match=f"lost {MAX_LOSSES + 1} times in a row.*launch.py resume runs/one"):
        runner.run()
    assert did.count("connect") == MAX_LOSSES
    assert len([line for line in output.said if "starting Ray anew" in line]) == MAX_LOSSES


@pytest.mark.usefixtures("private")
def test_progress_in_between_makes_each_loss_the_first() -> None:
    losses: list[Any] = [RayLost("its raylet died") for _ in range(3 * MAX_LOSSES)]
    runner, run_state, _, did = make([*losses, True])

    def connect() -> None:
        run_state.learner_steps += 100
        did.append("connect")

    runner._connect = connect
    assert runner.run()
    assert did.count("connect") == 3 * MAX_LOSSES


@pytest.mark.usefixtures("private")
def test_a_ray_that_does_not_start_at_once_is_tried_again() -> None:
    fails: list[Exception] = [MuZeroRayError("Ray did not start"), MuZeroRayError("Ray did not start")]

    def connect() -> None:
        if fails:
            raise fails.pop()

    runner, *_ = make([RayLost("its raylet died"), True], connect)
    assert runner.run()


@pytest.mark.usefixtures("private")
def test_a_stop_while_ray_is_started_anew_reaches_the_new_supervisor_and_waits_for_its_checkpoint() -> None:
    def connect() -> None:
        runner.request_stop()

    runner, _, _, did = make([RayLost("its raylet died"), False], connect)
    assert not runner.run()
    assert did[-3:] == ["stop", "restore", "run"]


@pytest.mark.usefixtures("private")
def test_on_a_cluster_it_says_what_was_lost_and_how_to_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray_runner, "is_private", lambda: False)
    runner, *_ = make([RayLost("the head of the cluster at 10.0.0.1:6379 has not answered for 31 s")])
    with pytest.raises(MuZeroRayError, match=r"10\.0\.0\.1:6379 has not answered.*launch.py resume runs/one"):
        runner.run()


def test_a_new_ray_leaves_sigterm_to_the_run() -> None:
    import ray._private.utils

    def mine(*_: object) -> None: ...

    before = signal.signal(signal.SIGTERM, mine)
    try:
        with keep_sigterm_handler():
            ray._private.utils.set_sigterm_handler(lambda *_: None)
        assert signal.getsignal(signal.SIGTERM) is mine
        ray._private.utils.set_sigterm_handler(signal.SIG_DFL)
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    finally:
        signal.signal(signal.SIGTERM, before)


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """How soon things happen is for `chaos` to judge."""
    for limit in ("PATIENCE", "GONE_SECONDS", "RECENT"):
        monkeypatch.setattr(ray_processes, limit, PATIENCE)


@pytest.mark.ray
@pytest.mark.usefixtures("patient")
def test_a_run_plays_on_when_ray_is_lost_and_a_stop_meanwhile_loses_no_acknowledged_game(tmp_path: Path) -> None:
    """Ray's agent is killed, which the raylet follows, and then the GCS; `chaos ray-processes` kills all."""
    with train(tmp_path) as program:
        run = WitnessedRun(program, tmp_path)
        one(run, VICTIMS["agent"], random.Random(6))
        before = program.printed().count("starting Ray anew")
        assert before == 1
        os.kill(find(program.pid, VICTIMS["GCS"].sign), signal.SIGKILL)
        run.wait(lambda: program.printed().count("starting Ray anew") > before, "the loss found", PATIENCE)
        assert program.stop(PATIENCE) == 130
    index = safetensors.numpy.load(load_checkpoint(tmp_path / "run").files[ARRAYS_FILE])["index"]
    games = acknowledged(tmp_path)
    assert games
    assert games <= {GameId(*row) for row in index[:, :3].tolist()}
