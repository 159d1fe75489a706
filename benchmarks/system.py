"""The whole program on Ray, Breakout preset: are the cores busy with what counts, and does the learner ever wait?"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import psutil
import ray

from benchmarks.cluster import RunningWorkers, WatchedRunState, cpu_seconds, private_ray, running_program
from benchmarks.engines import changed
from benchmarks.measure import Effort, Row, Samples, make_row
from muzero_ray.config.files import load_preset
from muzero_ray.config.schema import Config

USEFUL = ("self_play", "learner", "replay", "reanalyze", "evaluator")
"""Kinds of workers that search or train, with replay, which builds the learner's batches beside it; what they spend on
Ray and on environments is theirs, too."""

FIRST_UPDATE_TIMEOUT = 600.0


class Reading(NamedTuple):
    """One look at the running program; counters since its start, seconds of CPU by kind."""

    at: float
    cpu: dict[str, float]
    env_steps: int
    learner_steps: int
    train_seconds: float
    machine: float
    """CPU seconds of everything on this machine."""


def system(effort: Effort) -> Iterator[Row]:
    """Breakout preset from its first update on. Quick: replay is not filled as far before that."""
    config = changed(load_preset("breakout"), "run", wandb="disabled", minutes=60.0)
    if effort.slice_seconds < 10:
        config = changed(config, "replay", min_size=config.learner.batch_size)
    with private_ray():
        yield from whole_system(config, effort)


def whole_system(config: Config, effort: Effort) -> Iterator[Row]:
    """Runs `config`, looks every `effort.slice_seconds`; Ray must be up."""
    readings: list[Reading] = []
    with running_program(config) as running:
        run_state = WatchedRunState(config)
        learner = running.workers.one("learner").actor
        ray.get(learner.__ray_call__.remote(_time_learner), timeout=FIRST_UPDATE_TIMEOUT)
        running.run(run_state, lambda: _watch(running, run_state, effort, readings))
        took: dict[str, float] = ray.get(
            learner.__ray_call__.remote(lambda worker: worker.seconds), timeout=FIRST_UPDATE_TIMEOUT
        )
    # Of all calls since the start, those of the drain included.
    samples: Samples = {"wait": [took["wait"]], "calls": [run_state.train_seconds]}
    samples["other"] = [max(run_state.train_seconds - took["wait"] - took["update"], 0.0)]
    samples |= _slices(readings)
    yield make_row("system/busy", "cores", samples, "busy", "cores", "all cores")
    # On a machine with other users the first cannot be near 1, however well the program does.
    yield make_row("system/busy-of-ours", "cores", samples, "busy", "ours", "what others left of them")
    yield make_row("system/machine", "cores", samples, "machine", "cores", "all cores")
    for kind in readings[0].cpu:
        yield make_row(f"system/cpu/{kind}", "cores", samples, f"cpu {kind}", "cores", "all cores")
    yield make_row("system/env-steps", "steps/s", samples, "env steps")
    yield make_row("system/learner-steps", "steps/s", samples, "learner steps")
    yield make_row("system/learner-wait", "s", samples, "wait", "calls", "its calls")
    yield make_row("system/learner-other", "s", samples, "other", "calls", "its calls")
    yield make_row("system/learner-in-calls", "s/s", samples, "in calls")


def _watch(running: RunningWorkers, run_state: WatchedRunState, effort: Effort, readings: list[Reading]) -> None:
    processes = running.processes()
    deadline = time.monotonic() + FIRST_UPDATE_TIMEOUT
    while not run_state.learner_steps:
        if time.monotonic() > deadline:
            raise TimeoutError(
                f"no update in {FIRST_UPDATE_TIMEOUT:.0f} s, {run_state.env_steps} env steps were played"
            )
        time.sleep(0.1)
    for look in range(effort.slices + 1):
        if look:
            time.sleep(effort.slice_seconds)
        busy = psutil.cpu_times()
        machine = sum(busy) - busy.idle - getattr(busy, "iowait", 0.0)
        cpu = cpu_seconds(processes)
        steps = run_state.env_steps, run_state.learner_steps, run_state.train_seconds
        readings.append(Reading(time.monotonic(), cpu, *steps, machine))


def _slices(readings: list[Reading]) -> Samples:
    """What was done between two readings, per second."""
    cores = float(psutil.cpu_count() or 1)
    samples: Samples = {}
    for before, after in itertools.pairwise(readings):
        seconds = after.at - before.at
        cpu = {kind: (after.cpu[kind] - before.cpu[kind]) / seconds for kind in after.cpu}
        machine = (after.machine - before.machine) / seconds
        figures = {
            "busy": sum(cpu.get(kind, 0.0) for kind in USEFUL),
            "machine": machine,
            "cores": cores,
            "ours": cores - max(machine - sum(cpu.values()), 0.0),
            "env steps": (after.env_steps - before.env_steps) / seconds,
            "learner steps": (after.learner_steps - before.learner_steps) / seconds,
            "in calls": (after.train_seconds - before.train_seconds) / seconds,
        } | {f"cpu {kind}": value for kind, value in cpu.items()}
        for key, value in figures.items():
            samples.setdefault(key, []).append(value)
    return samples


def _time_learner(worker: Any) -> None:
    """In the learner's process: add up the time in its updates, and that until it has the batch for one."""
    worker.seconds = {"update": 0.0, "wait": 0.0}
    worker._learner.train_step = _timed(worker._learner.train_step, worker.seconds, "update")
    worker._receive = _timed(worker._receive, worker.seconds, "wait")


def _timed(call: Callable[..., Any], seconds: dict[str, float], key: str) -> Callable[..., Any]:
    def timed(*arguments: Any) -> Any:
        begin = time.monotonic()
        result = call(*arguments)
        seconds[key] += time.monotonic() - begin
        return result

    return timed
