"""Who sees GPUs: only a learner for which they are reserved, or that is alone on a private Ray."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import torch

from muzero_ray.actors.evaluator import EvaluatorWorker
from muzero_ray.actors.replay import ReplayWorker
from muzero_ray.actors.self_play import SelfPlayWorker
from muzero_ray.config.schema import Config
from muzero_ray.control.probe import probe
from muzero_ray.envs.task_spec import TaskSpec
from muzero_ray.learner.rank import LearnerRank
from muzero_ray.learner.reanalyze_worker import ReanalyzeWorker
from muzero_ray.training.build import resolve_device
from tests.actors.programs import ray_config


@pytest.fixture
def two_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine with two, as CUDA shows them: all, unless CUDA_VISIBLE_DEVICES names fewer."""

    def count() -> int:
        named = os.environ.get("CUDA_VISIBLE_DEVICES")
        return 2 if named is None else len([one for one in named.split(",") if one])

    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "to be put back")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")  # as Ray 2.60 leaves it for an actor without GPUs
    monkeypatch.setattr(torch.cuda, "is_available", lambda: count() > 0)
    monkeypatch.setattr(torch.cuda, "device_count", count)


def configured(*, workers: int = 1, gpus: float = 0.0, address: str | None = None) -> Config:
    config = ray_config(learner={"workers": workers, "batch_size": 32, "device": "auto", "gpus": gpus})
    return config.model_copy(update={"run": config.run.model_copy(update={"address": address})})


@pytest.mark.usefixtures("two_gpus")
@pytest.mark.parametrize(
    ("config", "device"),
    [
        (configured(workers=2), "cpu"),
        (configured(address="auto"), "cpu"),
        (configured(), "cuda"),
        (configured(workers=2, gpus=1.0), "cuda"),
        (configured(gpus=1.0, address="auto"), "cuda"),
    ],
)
def test_a_learner_takes_no_gpu_that_may_be_anothers(
    config: Config, device: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("muzero_ray.learner.rank.build_learner", lambda *_: None)
    monkeypatch.setattr(torch, "set_num_threads", lambda _: None)
    task: Any = None
    LearnerRank(config, task, 0, [])
    assert resolve_device(config.learner.device).type == device


@pytest.fixture(scope="module")
def task() -> TaskSpec:
    return probe(configured())


@pytest.mark.usefixtures("two_gpus")
@pytest.mark.parametrize("kind", ["self_play", "reanalyze", "evaluator", "replay"])
def test_no_other_worker_sees_one(kind: str, task: TaskSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "set_num_threads", lambda _: None)
    monkeypatch.setattr(os, "nice", lambda _: 0)
    monkeypatch.setattr("muzero_ray.actors.replay.restarted_by_ray", lambda: False)
    config, handle = configured(), None
    make: dict[str, Any] = {
        "self_play": lambda: SelfPlayWorker(config, task, 0, 0, handle, handle, tmp_path / "note"),
        "reanalyze": lambda: ReanalyzeWorker(config, task, [], handle),
        "evaluator": lambda: EvaluatorWorker(config, task, handle, tmp_path / "note"),
        "replay": lambda: ReplayWorker(config, task, 0, tmp_path),
    }
    assert torch.cuda.is_available()
    make[kind]()
    assert not torch.cuda.is_available()
