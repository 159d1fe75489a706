"""Exported networks: another program computes the same, and the description beside them is enough to call them."""

from __future__ import annotations

import builtins
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

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


def test_a_file_that_computes_something_else_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("onnxruntime")
    write = onnx_export._write
    other = network("cartpole")
    other.load_state_dict({name: tensor + 0.1 for name, tensor in other.state_dict().items()})

    def write_another(part: onnx_export.Part, path: Path) -> None:
        write(part._replace(module=type(part.module)(other)), path)

    monkeypatch.setattr(onnx_export, "_write", write_another)
    with pytest.raises(MuZeroRayError, match=r"h\.onnx: onnxruntime computes another hidden than the network"):
        export("cartpole", tmp_path)


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
