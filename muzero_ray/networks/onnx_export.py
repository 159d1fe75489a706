"""The three functions of a network as ONNX files, checked against the network, and a description of them.

    h.onnx  observations -> hidden
    g.onnx  hidden, action -> next_hidden, reward
    f.onnx  hidden -> policy, value

Any number of rows. Scalars are in env units: what decodes the supports is part of the files.
"""

from __future__ import annotations

import contextlib
import json
import tempfile
import warnings
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import nn

from muzero_ray.errors import ConfigError, MuZeroRayError, in_one_line
from muzero_ray.networks.model import MuZeroNetwork
from muzero_ray.types import Array

DESCRIPTION = "model.json"

REMEDY = "pip install 'muzero-ray[onnx]'"

TOLERANCE = 1e-3
"""Largest difference to the network, relative to the larger of 1 and the number, that passes the check."""


class Part(NamedTuple):
    """One of the files. arguments: by name, as examples. outputs: their names."""

    name: str
    module: nn.Module
    arguments: Mapping[str, torch.Tensor]
    outputs: tuple[str, ...]


class _Representation(nn.Module):
    def __init__(self, network: MuZeroNetwork) -> None:
        super().__init__()
        self.network = network

    def forward(self, observations: torch.Tensor) -> torch.Tensor:
        return self.network.represent(observations)


class _Dynamics(nn.Module):
    def __init__(self, network: MuZeroNetwork) -> None:
        super().__init__()
        self.network = network

    def forward(self, hidden: torch.Tensor, action: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        following, reward_logits = self.network.dynamics(hidden, action)
        return following, self.network.reward_support.decode(reward_logits)


class _Prediction(nn.Module):
    def __init__(self, network: MuZeroNetwork) -> None:
        super().__init__()
        self.network = network

    def forward(self, hidden: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        policy_logits, value_logits = self.network.predict(hidden)
        return torch.softmax(policy_logits, dim=-1), self.network.value_support.decode(value_logits)


def export_onnx(
    network: MuZeroNetwork,
    folder: Path,
    *,
    observation_shape: tuple[int, ...],
    observation_dtype: str,
    about: Mapping[str, Any],
) -> None:
    """Write the files into `folder`, which is made if missing, once onnxruntime computes what the network does.

    observation_shape: stacked. about: what the description says besides the inputs and outputs. Raises ConfigError if a
    package is missing, MuZeroRayError if the network cannot be exported, if onnxruntime computes something else, or if
    the folder cannot be written to.
    """
    runtime = _onnxruntime()
    network = network.eval()
    parts = _parts(network, _observations(3, observation_shape, observation_dtype))
    files = {f"{part.name}.onnx": _exported(part) for part in parts}
    sessions = {name: _session(runtime, name, content) for name, content in files.items()}
    for rows in (1, 5):
        for part in _parts(network, _observations(rows, observation_shape, observation_dtype)):
            _check(part, sessions[f"{part.name}.onnx"])
    description = {**about, "functions": {part.name: _described(part) for part in parts}}
    _write({**files, DESCRIPTION: f"{json.dumps(description, indent=2)}\n".encode()}, folder)


def _write(files: Mapping[str, bytes], folder: Path) -> None:
    """All of them, or none: files of an earlier export stay until every new one is written."""
    written = {name: folder / f".{name}.new" for name in files}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, content in files.items():
            written[name].write_bytes(content)
        for name, path in written.items():
            path.replace(folder / name)
    except OSError as error:
        for path in written.values():
            with contextlib.suppress(OSError):
                path.unlink()
        raise MuZeroRayError(f"{folder} cannot be written ({error.strerror or error}). Name another folder") from error


def _parts(network: MuZeroNetwork, observations: torch.Tensor) -> tuple[Part, Part, Part]:
    """With arguments that follow from `observations`."""
    with torch.no_grad():
        hidden = network.represent(observations)
    actions = torch.arange(len(observations)) % network.num_actions
    return (
        Part("h", _Representation(network), {"observations": observations}, ("hidden",)),
        Part("g", _Dynamics(network), {"hidden": hidden, "action": actions}, ("next_hidden", "reward")),
        Part("f", _Prediction(network), {"hidden": hidden}, ("policy", "value")),
    )


def _observations(rows: int, shape: tuple[int, ...], dtype: str) -> torch.Tensor:
    rng = np.random.default_rng(rows)
    if dtype == "uint8":
        return torch.from_numpy(rng.integers(0, 256, (rows, *shape), np.uint8))
    return torch.from_numpy(rng.normal(size=(rows, *shape)).astype(np.float32))


def _exported(part: Part) -> bytes:
    names = [*part.arguments, *part.outputs]
    try:
        with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
            file = Path(folder, part.name)
            # The older exporter takes a second where the newer one takes half a minute, and says that it is older.
            warnings.simplefilter("ignore")
            torch.onnx.export(
                part.module,
                tuple(part.arguments.values()),
                str(file),
                input_names=list(part.arguments),
                output_names=list(part.outputs),
                dynamic_axes={name: {0: "rows"} for name in names},
                dynamo=False,
            )
            return file.read_bytes()
    except Exception as error:  # whatever torch, or a network of a user's package, raises
        raise MuZeroRayError(
            f"{part.name} of this network cannot be exported ({type(error).__name__}: {in_one_line(error)}). Build it "
            "from what torch.onnx supports, or try another version of torch"
        ) from error


def _session(runtime: ModuleType, name: str, content: bytes) -> Any:
    try:
        return runtime.InferenceSession(content, providers=["CPUExecutionProvider"])
    except Exception as error:  # its own kinds, which have no common base
        raise MuZeroRayError(
            f"{name}: onnxruntime does not read what torch exports ({in_one_line(error)}). Try other versions of "
            "torch, onnx and onnxruntime"
        ) from error


def _results(part: Part) -> dict[str, Array]:
    with torch.no_grad():
        answer = part.module(*part.arguments.values())
    answers = (answer,) if isinstance(answer, torch.Tensor) else answer
    return {name: one.numpy() for name, one in zip(part.outputs, answers, strict=True)}


def _described(part: Part) -> dict[str, Any]:
    def entry(name: str, array: Array) -> dict[str, Any]:
        return {"name": name, "dtype": str(array.dtype), "shape": ["rows", *array.shape[1:]]}

    return {
        "file": f"{part.name}.onnx",
        "inputs": [entry(name, tensor.numpy()) for name, tensor in part.arguments.items()],
        "outputs": [entry(name, array) for name, array in _results(part).items()],
    }


def _check(part: Part, session: Any) -> None:
    found = session.run(list(part.outputs), {name: tensor.numpy() for name, tensor in part.arguments.items()})
    for (name, expected), got in zip(_results(part).items(), found, strict=True):
        if got.shape != expected.shape:
            difference = f"shape {got.shape} in place of {expected.shape}"
        elif (worst := float(np.max(np.abs(got - expected) / np.maximum(1.0, np.abs(expected))))) <= TOLERANCE:
            continue
        else:
            difference = f"difference {worst:.2g}, at most {TOLERANCE:g}"
        raise MuZeroRayError(
            f"{part.name}.onnx: onnxruntime computes another {name} than the network ({difference}). Nothing was "
            "written; try other versions of torch, onnx and onnxruntime"
        )


def _onnxruntime() -> ModuleType:
    try:
        import onnx  # noqa: F401 (torch needs it)
        import onnxruntime
    except ImportError as error:
        raise ConfigError(f"export needs onnx and onnxruntime ({error}). Install them with: {REMEDY}") from error
    module: ModuleType = onnxruntime
    return module
