"""The learner's step, its loss curve in both precisions, and how long its batch takes to build."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import torch

from benchmarks.engines import changed
from benchmarks.measure import Effort, Row, Trial, make_row, milliseconds, take_turns
from benchmarks.replay import fill, record_games
from muzero_ray.config.files import load_preset
from muzero_ray.config.schema import Config
from muzero_ray.control.probe import probe
from muzero_ray.envs.task_spec import TaskSpec
from muzero_ray.networks.precision import has_bf16
from muzero_ray.replay.build import build_buffer
from muzero_ray.training.build import build_learner
from muzero_ray.training.learner import Learner
from muzero_ray.types import Batch

SEED = 0
PRECISIONS = ("float32", "bf16")
CURVE_BATCHES = 20
"""Distinct batches of a loss curve, drawn again and again: the loss then falls in few updates."""


def learner(effort: Effort) -> Iterator[Row]:
    """Breakout preset on real frames."""
    preset = load_preset("breakout")
    task = probe(preset)
    buffer = build_buffer(preset, task)
    fill(buffer, iter(record_games(preset, effort.recorded, SEED)), effort.recorded)
    batch_size = preset.learner.batch_size
    batch = buffer.sample(batch_size, beta=1.0)
    trials: list[Trial] = [
        partial(_train, precision, build_learner(changed(preset, "learner", precision=precision), task), batch, effort)
        for precision in PRECISIONS
    ]
    trials.append(lambda: {"batch": milliseconds(lambda: buffer.sample(batch_size, beta=1.0), effort.seconds)})
    samples = take_turns(trials, effort.repeats)
    for precision in PRECISIONS:
        samples[f"{precision} rate"] = [1000.0 / time for time in samples[precision]]
    name, used = f"learner/breakout/B{batch_size}", "bf16" if has_bf16(torch.device("cpu")) else "float32"
    yield make_row(f"{name}/float32", "steps/s", samples, "float32 rate")
    yield make_row(f"{name}/bf16", "steps/s", samples, "bf16 rate", "float32 rate", "the step in float32")
    yield make_row(f"{name}/batch", "ms", samples, "batch", used, f"the step in {used}")
    batches = [buffer.sample(batch_size, beta=1.0) for _ in range(min(CURVE_BATCHES, effort.curve_steps))]
    yield _curves(preset, task, batches, effort.curve_steps)


def _train(label: str, trained: Learner, batch: Batch, effort: Effort) -> dict[str, float]:
    """Milliseconds of a step; the same batch every time, so that nothing but the step is timed."""

    def step() -> None:
        if trained.train_step(batch).skipped:
            raise RuntimeError(f"the {label} step was not finite: its time means nothing")

    return {label: milliseconds(step, effort.seconds)}


def _curves(preset: Config, task: TaskSpec, batches: list[Batch], steps: int) -> Row:
    """Relative difference of the bf16 loss from the float32 one, update by update, on the same batches from the same
    weights; against that of float32 from other first weights, which is what chance makes of a curve."""
    exact = _losses(changed(preset, "learner", precision="float32"), task, batches, steps)
    fast = _losses(changed(preset, "learner", precision="bf16"), task, batches, steps)
    reseeded = changed(changed(preset, "learner", precision="float32"), "run", seed=preset.run.seed + 1)
    other = _losses(reseeded, task, batches, steps)
    samples = {
        "bf16": [abs(a - b) / b for a, b in zip(fast, exact, strict=True)],
        "seed": [abs(a - b) / b for a, b in zip(other, exact, strict=True)],
    }
    return make_row("learner-curve/breakout/bf16", "of the loss", samples, "bf16", "seed", "float32, another seed")


def _losses(config: Config, task: TaskSpec, batches: list[Batch], steps: int) -> list[float]:
    trained = build_learner(config, task)
    losses = [trained.train_step(batches[step % len(batches)]).losses["loss/total"] for step in range(steps + 1)]
    return losses[1:]  # the heads' last layers start at 0, so the first loss is the same for all
