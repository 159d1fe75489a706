"""The distributed program on a private local cluster: real processes, real kills."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import ray
import safetensors.numpy

from actors.parameter_server import ParameterServer
from actors.supervisor import Program, Supervisor
from launch import build_program
from muzero_ray.config import Config
from muzero_ray.errors import EnvironmentFault, MuZeroRayError
from muzero_ray.runtime.build import build_learner, probe
from muzero_ray.runtime.checkpoint import Checkpoint, load_checkpoint
from muzero_ray.runtime.replay_archive import ARRAYS_FILE, INDEX_FILE
from muzero_ray.runtime.run_book import RunBook
from muzero_ray.runtime.run_output import RunOutput, learner_state
from muzero_ray.types import Weights, WeightsVersion
from tests.runtime.small_runs import rows, small_config

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("ray_cluster")]

KILL_AT = 60
"""Env steps after which the self-play actor is killed: within its second or third rollout."""


def ray_config(**sections: dict[str, Any]) -> Config:
    """Every kind of worker, and one self-play actor, so that a run can not end without it."""
    run = {"serial": False, "training_steps": 30, "log_steps": 10, "checkpoint_steps": 15}
    base: dict[str, dict[str, Any]] = {
        "run": small_config().run.model_dump() | run,
        "actors": {"count": 1, "envs_per_actor": 4, "rollout_steps": 40, "num_cpus": 0.2, "learner_cpus": 0.2},
        "reanalyze": {"share": 0.5, "simulations": 2},
        "replay": {"capacity": 2000},
    }
    return small_config(**{name: base.get(name, {}) | sections.get(name, {}) for name in base | sections})


@contextlib.contextmanager
def running(config: Config, folder: Path) -> Iterator[tuple[Supervisor, Program, RunBook, RunOutput]]:
    """A started program in `folder`, a new run or the next part of one; its processes are killed in the end."""
    checkpoint = load_checkpoint(folder) if folder.exists() else None
    output = RunOutput.reopen(config, folder, checkpoint) if checkpoint else RunOutput.create(config, folder)
    book = RunBook(config)
    if checkpoint:
        book.load_state(checkpoint.state["book"])
    with output:
        program = build_program(config, probe(config), book, output)
        supervisor = Supervisor(program, book, config, output)
        try:
            supervisor.start(*((learner_state(checkpoint), checkpoint.files) if checkpoint else (None, None)))
            yield supervisor, program, book, output
        finally:
            for handle in (program.replay, program.params, *(slot.handle for slot in program.slots)):
                ray.kill(handle)


def pid_of(handle: Any) -> int:
    pid: int = ray.get(handle.__ray_call__.remote(lambda _: os.getpid()), timeout=120)
    return pid


def on_progress(output: RunOutput, action: Callable[[RunBook], None]) -> None:
    """Call `action` whenever the supervisor shows how far it is."""
    show = output.show

    def show_and_act(book: RunBook) -> None:
        show(book)
        action(book)

    output.show = show_and_act  # type: ignore[method-assign]


@pytest.fixture(scope="module")
def killed_run(ray_cluster: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run: its self-play process was killed -9 in the middle, its evaluator before the final score."""
    del ray_cluster
    folder = tmp_path_factory.mktemp("ray") / "run"
    with running(ray_config(), folder) as (supervisor, program, _, output):
        victims = [pid_of(program.of("self_play")[0].handle)]

        def kill(book: RunBook) -> None:
            if book.env_steps >= KILL_AT and victims:
                os.kill(victims.pop(), signal.SIGKILL)

        on_progress(output, kill)
        assert supervisor.run()
        assert not victims
        os.kill(pid_of(program.of("evaluator")[0].handle), signal.SIGKILL)
        supervisor.final_evaluation()
        assert (program.restarts, program.of("evaluator")[0].restarts) == (2, 1)
    return folder


def test_a_run_reaches_its_target_and_leaves_a_checkpoint_metrics_and_scores(killed_run: Path) -> None:
    config = ray_config()
    checkpoint = load_checkpoint(killed_run)
    assert checkpoint.step == checkpoint.state["learner"]["step"] == 30
    shape = probe(config)
    learner, fresh = build_learner(config, shape), build_learner(config, shape)
    learner.load_state(*learner_state(checkpoint))
    assert not np.array_equal(learner.weights(), fresh.weights())
    written = rows(killed_run)
    assert {row["learner_steps"] for row in written} == {10, 20, 30}
    trained = [row for row in written if "loss/total" in row]
    assert len(trained) >= 3
    assert all(np.isfinite(row["loss/total"]) for row in trained)
    assert all(row.get("actors/weights_lag", 0) >= 0 for row in written)
    book = checkpoint.state["book"]
    # Every transition trained on twice: 30 updates of 16, after a warm-up of 48.
    assert book["limiter"]["sampled"] == 30 * 16
    assert book["limiter"]["inserted"] >= 48 + 30 * 16 / 2
    assert book["env_steps"] >= book["limiter"]["inserted"]
    index = safetensors.numpy.load(checkpoint.files[ARRAYS_FILE])["index"]
    assert book["reanalyzed"] > 0
    assert index[:, 6].any()  # games whose targets were replaced
    scores = [json.loads(line) for line in (killed_run / "scores.jsonl").read_text().splitlines()]
    assert [score["kind"] for score in scores][-2:] == ["final", "random"]
    assert scores[-2]["learner_step"] == 30
    assert len(scores[-2]["returns"]) == 3


def test_a_killed_self_play_process_is_replaced_and_counted(killed_run: Path) -> None:
    assert rows(killed_run)[-2]["actors/restarts"] == 1
    assert rows(killed_run)[-2]["actors/alive"] == 1
    # Its games are there, and those of its replacement, under an incarnation of its own.
    ids = [tuple(i) for c in json.loads(load_checkpoint(killed_run).files[INDEX_FILE])["chunks"] for i in c["ids"]]
    assert {incarnation for _, incarnation, _ in ids} == {0, 1}
    assert len(set(ids)) == len(ids)


def test_a_resumed_run_holds_what_was_saved_and_goes_on_counting(killed_run: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    shutil.copytree(killed_run, folder)
    before: Checkpoint = load_checkpoint(folder)
    rows_before = before.state["metrics_rows"]
    lines_before = (folder / "metrics.jsonl").read_text().splitlines()[:rows_before]
    config = ray_config(run={"training_steps": 45})
    with running(config, folder) as (supervisor, program, book, output):
        arrays, info = ray.get(program.of("learner")[0].handle.save.remote(), timeout=120)
        expected, expected_info = learner_state(before)
        assert info == expected_info
        assert arrays.keys() == expected.keys()
        for name, array in arrays.items():
            assert array.dtype == expected[name].dtype
            assert array.tobytes() == expected[name].tobytes(), name
        assert ray.get(program.replay.save.remote(), timeout=120)[ARRAYS_FILE] == before.files[ARRAYS_FILE]
        assert (book.learner_steps, book.env_steps) == (30, before.state["book"]["env_steps"])
        assert supervisor.run()
        # Under a larger budget the same processes go on. The learner's end is the run's, and so is replay's.
        longer = ray_config(run={"training_steps": 100_000})
        learner_slot = program.of("learner")[0]
        for victim, name in ((learner_slot.handle, "learner 0 failed"), (program.replay, "ReplayWorker")):
            went_on = RunBook(longer)
            went_on.load_state(book.state())
            if victim is program.replay:
                learner_slot.call = None
                went_on.limiter.samples(10_000)  # so that nothing is asked of the learner, which is dead
            os.kill(pid_of(victim), signal.SIGKILL)
            with pytest.raises(MuZeroRayError, match=f"{name}.* python launch.py resume {folder}"):
                Supervisor(program, went_on, longer, output).run()
    after = load_checkpoint(folder)
    assert after.step == 45
    assert after.state["book"]["resumes"] == 1
    for counter in ("env_steps", "episodes", "seconds"):
        assert after.state["book"][counter] > before.state["book"][counter]
    assert (folder / "metrics.jsonl").read_text().splitlines()[:rows_before] == lines_before
    assert [row["learner_steps"] for row in rows(folder)][rows_before:] == [40, 45]
    incarnations = safetensors.numpy.load(after.files[ARRAYS_FILE])["index"][:, 1].tolist()
    assert max(incarnations) == 1 << 16
    assert min(incarnations) <= 1  # games from before are still there


def test_a_broken_environment_ends_the_run_with_its_name(tmp_path: Path) -> None:
    config = ray_config(env={"id": "tests.faulty_environment:Breaks-v0"})
    with (
        running(config, tmp_path / "run") as (supervisor, _, book, _),
        pytest.raises(EnvironmentFault) as caught,
    ):
        supervisor.run()
    # The fault as it was raised in the actor, without Ray's wrapping.
    message = r"environment \S*Breaks-v0 \(seed \d+, step \d+\): observation is not finite: .* got nan at \[0\]"
    assert re.fullmatch(message, str(caught.value))
    assert 0 < book.env_steps <= 90


def test_the_parameter_server_hands_out_what_is_newer_and_refuses_older_incarnations() -> None:
    server = ParameterServer()

    def publish(incarnation: int, step: int, name: Any = "online") -> None:
        server.publish(name, Weights(WeightsVersion(incarnation, step), np.full(3, step, np.float32)))

    def latest(have: WeightsVersion | None, name: Any = "online") -> tuple[int, int] | None:
        refs = server.latest(name, have)
        if not refs:
            return None
        weights = ray.get(refs[0], timeout=60)
        assert weights.flat.tolist() == [weights.version.step] * 3
        return tuple(weights.version)

    assert latest(None) is None
    publish(0, 100)
    assert latest(None) == (0, 100)
    assert latest(WeightsVersion(0, 100)) is None
    publish(1, 60)  # restored from a checkpoint: back in steps, yet newer
    assert latest(WeightsVersion(0, 100)) == (1, 60)
    publish(0, 101)  # a zombie
    assert latest(None) == (1, 60)
    publish(1, 59)
    assert latest(WeightsVersion(1, 60)) == (1, 59)
    assert latest(None, "target") is None
    publish(0, 5, "target")
    assert latest(None, "target") == (0, 5)
    assert latest(None) == (1, 59)
