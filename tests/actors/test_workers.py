"""The truth table with processes that do nothing but die, hang, wait and answer."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import ray

import muzero_ray.actors.workers
from muzero_ray.actors.worker_handle import OtherLost, ProcessLost, WorkerHandle, answer, backoff
from muzero_ray.actors.workers import MAX_BLOCKED, MAX_FAILURES, Workers
from muzero_ray.envs.crash_note import CrashNote
from muzero_ray.errors import CheckpointError, EnvironmentFault, MuZeroRayError, NumericsError
from tests.actors.small_worker import Worker
from tests.patience import PATIENCE, until

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("ray_cluster")]

WAIT = 0.2

FAILURES = 2
"""In place of MAX_FAILURES: each of them costs the start of a process."""


class Output:
    """What the truth table needs of a run's."""

    resume_hint = "Go on with: resume"

    def __init__(self) -> None:
        self.said: list[str] = []

    def message(self, text: str) -> None:
        self.said.append(text)


def spawn(kind: Any, index: int, restarts: int) -> Any:
    del kind, index
    return ray.remote(Worker).options(num_cpus=0).remote(restarts)


@pytest.fixture
def workers(monkeypatch: pytest.MonkeyPatch) -> Iterator[Workers]:
    """One evaluator and one self-play actor; who failed may work again at once."""
    monkeypatch.setattr(muzero_ray.actors.workers, "backoff", lambda _: 0.0)
    monkeypatch.setattr(muzero_ray.actors.workers, "MAX_FAILURES", FAILURES)
    monkeypatch.setattr(muzero_ray.actors.workers, "PLACING_SECONDS", PATIENCE)  # nothing is said of slow starts
    result = Workers(
        [
            WorkerHandle("evaluator", 0, spawn("evaluator", 0, 0)),
            WorkerHandle("self_play", 0, spawn("self_play", 0, 0)),
        ],
        spawn,
        Output(),  # type: ignore[arg-type]
    )
    yield result
    for worker in result.handles:
        ray.kill(worker.actor)


def placed(workers: Workers) -> None:
    def all_ready() -> bool:
        assert list(workers.collect(WAIT)) == []
        return all(worker.ready is None for worker in workers.handles)

    if any(worker.ready is not None for worker in workers.handles):
        until(all_ready, pause=0.0)


def call(workers: Workers, worker: WorkerHandle[Any], method: Callable[..., object], *arguments: Any) -> Any:
    """The outcome of one call."""
    outcomes: list[Any] = []

    def come() -> bool:
        outcomes.extend(workers.collect(WAIT))
        return bool(outcomes)

    worker.send(method, *arguments)
    until(come, pause=0.0)
    ((answered, result),) = outcomes
    assert answered is worker
    return result


def said(workers: Workers) -> list[str]:
    return workers._output.said  # type: ignore[attr-defined, no-any-return]


def test_who_dies_is_replaced_by_its_next_incarnation(workers: Workers) -> None:
    placed(workers)
    worker = workers.one("self_play")
    assert call(workers, worker, Worker.work) == 0
    assert isinstance(call(workers, worker, Worker.die), ProcessLost)
    assert worker.ready is not None  # no calls to it yet
    assert not worker.is_free(time.monotonic())
    placed(workers)
    assert call(workers, worker, Worker.work) == 1
    assert (worker.restarts, workers.restarts, workers.one("evaluator").restarts) == (1, 1, 0)
    assert said(workers)[0].startswith("self_play 0 lost (")


def test_a_new_process_that_is_ready_has_proved_nothing(workers: Workers) -> None:
    """Else a worker that dies of each call would be replaced for ever."""
    worker = workers.one("self_play")
    for _ in range(FAILURES):
        placed(workers)
        assert isinstance(call(workers, worker, Worker.die), ProcessLost)
    placed(workers)
    with pytest.raises(MuZeroRayError, match=rf"self_play 0 failed {FAILURES + 1} times in a row") as caught:
        call(workers, worker, Worker.die)
    assert worker.restarts == FAILURES
    lines = str(caught.value).splitlines()
    assert lines[-1] == "Go on with: resume"
    # The worst first, each with its line of the table.
    assert lines[1].split()[:2] == ["self_play", "0"]
    assert f"restarts {FAILURES}, failures {FAILURES + 1}" in lines[1]
    assert lines[2].split()[0] == "evaluator"


@pytest.mark.parametrize("noted", [FAILURES + 1, FAILURES])
def test_deaths_in_an_environment_are_its_fault_if_all_are(workers: Workers, noted: int) -> None:
    worker = workers.one("self_play")
    with tempfile.TemporaryDirectory() as folder:
        workers._notes = SimpleNamespace(path=Path(folder))  # type: ignore[assignment]
        for death in range(FAILURES + 1):
            placed(workers)
            if death < noted:
                CrashNote(Path(folder, worker.note), "Lights-v0").enter("step", 17, death)
            if death < FAILURES:
                call(workers, worker, Worker.die)
        kind = EnvironmentFault if noted > FAILURES else MuZeroRayError
        with pytest.raises(MuZeroRayError) as caught:
            call(workers, worker, Worker.die)
    assert type(caught.value) is kind
    assert said(workers)[0].startswith(
        "self_play 0 lost (environment Lights-v0 (seed 17, step 0): step has not returned ("
    )


def test_one_that_holds_too_much_is_replaced_and_not_for_ever(workers: Workers) -> None:
    worker = workers.one("self_play")
    for _ in range(FAILURES):
        placed(workers)
        assert isinstance(call(workers, worker, Worker.work), int)
        workers.memory_exceeded(worker, "environment Lights-v0 (seed 1, step 2): its process holds 7.0 GB")
    assert worker.restarts == FAILURES
    placed(workers)
    with pytest.raises(EnvironmentFault, match=r"last: environment Lights-v0 \(seed 1, step 2\)"):
        workers.memory_exceeded(worker, "environment Lights-v0 (seed 1, step 2): its process holds 7.0 GB")


def test_who_does_not_answer_in_time_is_replaced(workers: Workers, monkeypatch: pytest.MonkeyPatch) -> None:
    placed(workers)
    monkeypatch.setattr(muzero_ray.actors.workers, "CALL_TIMEOUT", 1.0)
    worker = workers.one("self_play")
    assert str(call(workers, worker, Worker.hang)) == "no answer to hang for 1 s"
    monkeypatch.setattr(muzero_ray.actors.workers, "CALL_TIMEOUT", PATIENCE)
    placed(workers)
    assert call(workers, worker, Worker.work) == 1


def test_who_waits_for_a_place_is_no_failure(workers: Workers, monkeypatch: pytest.MonkeyPatch) -> None:
    placed(workers)
    monkeypatch.setattr(muzero_ray.actors.workers, "CALL_TIMEOUT", 0.5)
    monkeypatch.setattr(muzero_ray.actors.workers, "PLACING_SECONDS", 1.0)
    unplaceable = WorkerHandle("self_play", 1, ray.remote(Worker).options(num_cpus=64).remote())
    workers.handles.append(unplaceable)
    while not said(workers):
        assert list(workers.collect(WAIT)) == []
    assert (unplaceable.failures, unplaceable.restarts) == (0, 0)
    assert said(workers) == ["1 of 2 self-play actors placed"]
    workers.handles.remove(unplaceable)
    ray.kill(unplaceable.actor)
    assert list(workers.collect(WAIT)) == []
    assert said(workers)[1:] == ["all workers are placed"]


def test_the_death_of_another_is_not_held_against_who_reports_it(
    workers: Workers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(muzero_ray.actors.workers, "MAX_BLOCKED", 3)
    placed(workers)
    worker = workers.one("self_play")
    hung, other = spawn("replay", 0, 0), spawn("replay", 1, 0)
    assert isinstance(call(workers, worker, Worker.ask, hung, Worker.hang), OtherLost)  # no answer
    ray.kill(hung)
    assert isinstance(call(workers, worker, Worker.ask, other, Worker.die), OtherLost)
    assert isinstance(call(workers, worker, Worker.ask, other, Worker.work), OtherLost)  # it is dead
    assert (worker.failures, worker.restarts, worker.blocked) == (0, 0, 3)
    assert call(workers, worker, Worker.work) == 0
    with pytest.raises(MuZeroRayError, match="self_play 0 got no answer from others 4 times in a row"):
        call(workers, worker, Worker.ask, other, Worker.work)
    assert MAX_BLOCKED > MAX_FAILURES


def test_who_lost_a_peer_is_replaced_and_not_asked_again(workers: Workers) -> None:
    placed(workers)
    worker, other = workers.one("self_play"), workers.one("evaluator")
    for restarts, arguments in enumerate(((Worker.lose_peer,), (Worker.ask, other.actor, Worker.lose_peer)), 1):
        lost = call(workers, worker, *arguments)
        assert isinstance(lost, ProcessLost)
        assert str(lost) == "a worker of the learner is gone"
        assert (worker.restarts, worker.blocked) == (restarts, 0)
        placed(workers)
    assert other.restarts == 0


def test_errors_for_the_user_come_through_as_they_are(workers: Workers) -> None:
    placed(workers)
    worker, other = workers.one("self_play"), workers.one("evaluator")
    for arguments in ((Worker.refuse,), (Worker.ask, other.actor, Worker.refuse)):
        with pytest.raises(MuZeroRayError) as caught:
            call(workers, worker, *arguments)
        assert type(caught.value) is CheckpointError
        assert str(caught.value) == "the disk is full"
        worker.release()


def test_a_learner_that_diverges_is_set_back_once(workers: Workers) -> None:
    worker = WorkerHandle("learner", 0, spawn("learner", 0, 0))
    workers.handles.append(worker)
    placed(workers)
    assert isinstance(call(workers, worker, Worker.diverge), ProcessLost)
    assert worker.fresh  # so the supervisor gives it the last checkpoint
    placed(workers)
    assert call(workers, worker, Worker.work) == 1
    with pytest.raises(NumericsError, match="the weights are not finite"):
        call(workers, worker, Worker.diverge)
    worker.release()
    worker.forgive()  # a checkpoint was written
    assert isinstance(call(workers, worker, Worker.die), ProcessLost)  # its death does not mean bad numbers
    placed(workers)
    assert isinstance(call(workers, worker, Worker.diverge), ProcessLost)
    placed(workers)
    with pytest.raises(NumericsError):
        call(workers, workers.one("self_play"), Worker.diverge)


def test_a_constructor_that_fails_is_reported_by_its_exception() -> None:
    handle = ray.remote(Worker).options(num_cpus=0).remote(0, broken=True)
    with pytest.raises(ProcessLost, match=r"^KeyError: 'no such game'$"):
        answer(handle.__ray_ready__.remote(), PATIENCE)


def test_pauses_double_up_to_a_minute() -> None:
    assert [backoff(failures) for failures in range(1, 10)] == [1, 2, 4, 8, 16, 32, 60, 60, 60]
