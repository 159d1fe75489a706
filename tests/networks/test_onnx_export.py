"""Exported networks: another program computes the same, and the description beside them is enough to call them."""

from __future__ import annotations

import builtins
import errno
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from muzero_ray.errors import ConfigError, MuZeroRayError
from muzero_ray.inference.torch_engine import TorchEngine
from muzero_ray.networks import onnx_export
from muzero_ray.networks.build import make_network
from muzero_ray.networks.model import MuZeroNetwork
from muzero_ray.types import Array
from tests.small_runs import small_config

SHAPES: dict[str, tuple[int, ...]] = {"cartpole": (4,), "breakout": (3, 32, 32), "tictactoe": (4, 3, 3)}


def network(task: str) -> MuZeroNetwork:
    return make_network(
        small_config(task).network, observation_shape=SHAPES[task], num_actions=3, consistency=True, seed=1
    )


def export(task: str, folder: Path) -> None:
    dtype = "uint8" if task == "breakout" else "float32"
    onnx_export.export_onnx(
        network(task), folder, observation_shape=SHAPES[task], observation_dtype=dtype, about={"learner_step": 7}
    )


@pytest.mark.parametrize("task", SHAPES)
def test_onnxruntime_computes_what_the_engine_computes(task: str, tmp_path: Path) -> None:
    """Called as the description says, for a number of rows that the export did not use."""
    runtime = pytest.importorskip("onnxruntime")
    export(task, tmp_path / "new" / "folder")
    description = json.loads((tmp_path / "new" / "folder" / "model.json").read_text())
    assert description["learner_step"] == 7

    def call(function: str, **given: Array) -> dict[str, Array]:
        part = description["functions"][function]
        for one in part["inputs"]:
            array = given[one["name"]]
            assert ["rows", *array.shape[1:]] == one["shape"]
            given[one["name"]] = array.astype(one["dtype"])
        session = runtime.InferenceSession(str(tmp_path / "new" / "folder" / part["file"]))
        names = [one["name"] for one in part["outputs"]]
        return dict(zip(names, session.run(names, given), strict=True))

    engine, rng = TorchEngine(network(task)), np.random.default_rng(0)
    observations = rng.integers(0, 256, (4, *SHAPES[task])).astype(np.uint8 if task == "breakout" else np.float32)
    actions = np.array([0, 2, 1, 2], np.int32)
    root = engine.initial(observations)
    hidden = call("h", observations=observations)["hidden"]
    seen = call("f", hidden=hidden)
    np.testing.assert_allclose(seen["value"], root.value, rtol=1e-3, atol=1e-3)
    logits = root.policy_logits - root.policy_logits.max(axis=1, keepdims=True)
    np.testing.assert_allclose(
        seen["policy"], np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True), rtol=1e-3, atol=1e-4
    )
    after = type(root)(*(np.empty_like(part) for part in root))
    engine.recurrent(root.hidden, actions, after)
    moved = call("g", hidden=hidden, action=actions)
    np.testing.assert_allclose(moved["reward"], after.reward, rtol=1e-3, atol=1e-3)
    np.testing.assert_allclose(call("f", hidden=moved["next_hidden"])["value"], after.value, rtol=1e-3, atol=1e-3)


def changed(monkeypatch: pytest.MonkeyPatch, make: Callable[[onnx_export.Part], nn.Module]) -> None:
    """What is exported as h is another module."""
    exported = onnx_export._exported
    monkeypatch.setattr(
        onnx_export,
        "_exported",
        lambda part: exported(part._replace(module=make(part) if part.name == "h" else part.module)),
    )


class FirstRow(nn.Module):
    """Another shape of what it answers, which would broadcast to the right one."""

    def __init__(self, part: onnx_export.Part) -> None:
        super().__init__()
        self.module = part.module

    def forward(self, *given: torch.Tensor) -> torch.Tensor:
        answer: torch.Tensor = self.module(*given)
        return answer[:1]


class OfNumpy(nn.Module):
    """A network of a user's that torch cannot export."""

    def __init__(self, part: onnx_export.Part) -> None:
        super().__init__()
        self.name = part.name

    def forward(self, *given: torch.Tensor) -> torch.Tensor:
        return torch.special.bessel_j0(given[0])


def with_other_weights(part: onnx_export.Part) -> nn.Module:
    other = network("cartpole")
    other.load_state_dict({name: tensor + 0.1 for name, tensor in other.state_dict().items()})
    return type(part.module)(other)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            with_other_weights,
            r"h\.onnx: onnxruntime computes another hidden than the network \(difference [\d.]+, at most",
        ),
        (FirstRow, r"h\.onnx: .* another hidden than the network \(shape \(1, 16\) in place of \(5, 16\)\)"),
        (OfNumpy, r"h of this network cannot be exported \(UnsupportedOperatorError: .* Build it from"),
    ],
)
def test_what_cannot_be_exported_is_refused_and_nothing_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make: Callable[[onnx_export.Part], nn.Module], message: str
) -> None:
    pytest.importorskip("onnxruntime")
    changed(monkeypatch, make)
    with pytest.raises(MuZeroRayError, match=message):
        export("cartpole", tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_what_onnxruntime_does_not_read_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("onnxruntime")
    monkeypatch.setattr(onnx_export, "_exported", lambda _: b"not a model")
    with pytest.raises(MuZeroRayError, match=r"h\.onnx: onnxruntime does not read what torch exports"):
        export("cartpole", tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_a_disk_that_fills_up_leaves_no_part_of_an_export(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("onnxruntime")
    write = Path.write_bytes

    def full(path: Path, content: bytes) -> int:
        if "f.onnx" in path.name:
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(path, content)

    (tmp_path / "h.onnx").write_bytes(b"of an earlier export")
    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(MuZeroRayError, match=r"cannot be written \(No space left on device\)\. Name another"):
        export("cartpole", tmp_path)
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [("h.onnx", b"of an earlier export")]


def test_a_missing_package_is_named_with_its_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without(name: str, *rest: Any, **named: Any) -> Any:
        if name == "onnxruntime":
            raise ImportError("no onnxruntime here")
        return real(name, *rest, **named)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ConfigError, match=r"pip install 'muzero-ray\[onnx\]'"):
        export("cartpole", tmp_path / "none")
    assert not (tmp_path / "none").exists()


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    (tmp_path / "file").touch()
    with pytest.raises(MuZeroRayError, match=r"file cannot be written .* Name another folder"):
        export("cartpole", tmp_path / "file")
