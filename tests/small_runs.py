"""Runs of a few seconds, and what two of them must have in common to be the same run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from muzero_ray.config.schema import Config
from muzero_ray.control.probe import probe
from muzero_ray.control.run_state import RunState
from muzero_ray.control.serial import IN_FLIGHT_FILE, SerialRunner
from muzero_ray.replay.buffer import ReplayBuffer
from muzero_ray.replay.build import build_buffer
from muzero_ray.runs.checkpoint import Checkpoint, load_checkpoint
from muzero_ray.runs.metrics import MACHINE_METRICS
from muzero_ray.runs.output import RunOutput
from muzero_ray.runs.replay_archive import ReplayArchive
from tests.replay.games import stored

TINY_HEADS = {"head_layers": (16,), "value": {"max": 10.0, "bins": 11}, "reward": {"max": 2.0, "bins": 5}}

TASKS: dict[str, dict[str, Any]] = {
    "cartpole": {
        "env": {"id": "CartPole-v1", "max_moves": 60},
        "network": {"kind": "mlp", "hidden": 16, "layers": (16,), **TINY_HEADS},
    },
    "tictactoe": {
        "env": {"kind": "openspiel", "id": "tic_tac_toe"},
        "network": {"kind": "resnet", "downsample": 1, "channels": 4, "head_channels": 2, **TINY_HEADS},
        "search": {"kind": "puct", "simulations": 6, "value_bounds": (-1.0, 1.0), "temperature_moves": 4},
        "learner": {"discount": 1.0},
    },
    "breakout": {
        "run": {"learner_steps": 8, "log_steps": 2, "checkpoint_steps": 3},
        "env": {
            "kind": "atari",
            "id": "Breakout",
            "frame_stack": 3,
            "max_moves": 15,
            "atari": {"image_size": 32, "noop_max": 2},  # loading a game takes 0.1 s: as few as will do
        },
        "network": {"kind": "resnet", "downsample": 16, "channels": 4, "head_channels": 2, **TINY_HEADS},
        "search": {"simulations": 2},
        "replay": {"segment_length": 5, "min_size": 24},
        "learner": {"consistency_weight": 2.0, "batch_size": 8},
        "actors": {"count": 1, "envs_per_actor": 2, "rollout_steps": 20},
        "evaluation": {"episodes": 1, "interval_steps": 6, "final_episodes": 1, "video": False},
    },
}
"""Settings over those of `small_config`. Capacities are below what is played, so replay has to forget."""


def small_config(task: str = "cartpole", **sections: dict[str, Any]) -> Config:
    """A task of `TASKS`, with further settings by section."""
    data: dict[str, dict[str, Any]] = {
        "run": {
            "learner_steps": 40,
            "log_steps": 5,
            "checkpoint_steps": 15,
            "wandb": "disabled",
            "serial": True,
            "seed": 3,
        },
        "search": {"simulations": 4},
        "replay": {"capacity": 250, "min_size": 48, "samples_per_insert": 2.0, "segment_length": 8, "holdout": 0.1},
        "learner": {"batch_size": 16, "unroll_steps": 3, "td_steps": 4, "lr": 1e-2, "warmup_steps": 5},
        "actors": {"count": 1, "envs_per_actor": 4, "rollout_steps": 40},
        "evaluation": {"interval_steps": 20, "episodes": 2, "final_episodes": 3, "video": False},
    }
    for changes in (TASKS[task], sections):
        for name, values in changes.items():
            data[name] = data.get(name, {}) | values
    return Config.model_validate(data)


def small_settings(runs: Path, name: str = "run") -> dict[str, Any]:
    """What makes the preset `cartpole` a run of seconds, by dotted names."""
    small = small_config().to_dict()
    sections = {section: small[section] for section in ("replay", "learner", "actors", "evaluation")}
    flat = {f"{section}.{key}": value for section, values in sections.items() for key, value in values.items()}
    run = {"learner_steps": 40, "log_steps": 10, "checkpoint_steps": 20, "wandb": "disabled"}
    return flat | {f"run.{key}": value for key, value in run.items()} | {"run.runs_dir": str(runs), "run.name": name}


class StoppingOutput:
    """Makes `output` ask the runner to stop in the first turn that ends at learner step `step` or later."""

    def __init__(self, output: RunOutput, step: int) -> None:
        self.runner: SerialRunner | None = None
        show = output.show

        def show_and_stop(run_state: RunState) -> None:
            show(run_state)
            if run_state.learner_steps >= step:
                assert self.runner is not None
                self.runner.request_stop()

        output.show = show_and_stop  # type: ignore[method-assign]


def run_serial(config: Config, folder: Path, *, stop_at: int | None = None) -> bool:
    """A run in `folder`: a new one, or the next part of what is there. What `SerialRunner.run` returns."""
    checkpoint = load_checkpoint(folder) if folder.exists() else None
    output = RunOutput.reopen(config, folder, checkpoint) if checkpoint else RunOutput.create(config, folder)
    stopping = StoppingOutput(output, stop_at) if stop_at is not None else None
    with output:
        runner = SerialRunner(config, probe(config), output, checkpoint)
        if stopping is not None:
            stopping.runner = runner
        done = runner.run()
        if done:
            runner.final_evaluation()
        return done


def rows(folder: Path) -> list[dict[str, Any]]:
    """The rows of metrics.jsonl."""
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def reproducible_metrics(folder: Path) -> str:
    """Text of metrics.jsonl without the columns that depend on the clock or the machine."""
    kept = [{name: value for name, value in row.items() if name not in MACHINE_METRICS} for row in rows(folder)]
    return "\n".join(json.dumps(row) for row in kept)


def restored_replay(config: Config, folder: Path, checkpoint: Checkpoint) -> ReplayBuffer:
    """The replay of `checkpoint`."""
    buffer = build_buffer(config, probe(config))
    ReplayArchive(folder / "replay").load(buffer, checkpoint.files)
    return buffer


def assert_same_run(config: Config, one: Path, other: Path) -> None:
    """Both ended in the same place by the same way: metrics, scores, weights, optimizer, replay, games in flight."""
    assert reproducible_metrics(one) == reproducible_metrics(other)
    assert (one / "scores.jsonl").read_text() == (other / "scores.jsonl").read_text()
    first, second = load_checkpoint(one), load_checkpoint(other)
    assert first.step == second.step
    for name in ("model.safetensors", "optimizer.safetensors"):
        assert (first.path / name).read_bytes() == (second.path / name).read_bytes(), name
    assert first.files[IN_FLIGHT_FILE] == second.files[IN_FLIGHT_FILE]
    assert _lasting(first) == _lasting(second)
    replay, other_replay = restored_replay(config, one, first), restored_replay(config, other, second)
    assert stored(replay) == stored(other_replay)
    (arrays, meta), (other_arrays, other_meta) = replay.state(), other_replay.state()
    assert meta == other_meta
    assert arrays.keys() == other_arrays.keys()
    assert len(arrays["priorities"]) > 0
    for name in arrays:
        np.testing.assert_array_equal(arrays[name], other_arrays[name], err_msg=name)


def _lasting(checkpoint: Checkpoint) -> dict[str, Any]:
    """state.json without clocks, the W&B run, the number of resumes, and sums that depend on the clock."""
    run_state = {name: value for name, value in checkpoint.state["book"].items() if name not in ("seconds", "resumes")}
    run_state["metrics"] = {name: value for name, value in run_state["metrics"].items() if name not in MACHINE_METRICS}
    return {**checkpoint.state, "book": run_state, "wandb_id": None}
