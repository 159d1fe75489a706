"""`make_engine`: which InferenceEngine serves a network."""

from __future__ import annotations

from typing import Literal

import torch

from muzero_ray.config.schema import Config
from muzero_ray.envs.task_spec import TaskSpec
from muzero_ray.errors import ConfigError
from muzero_ray.inference.engine import InferenceEngine
from muzero_ray.inference.torch_engine import TorchEngine
from muzero_ray.networks.build import build_network
from muzero_ray.networks.mlp import is_mlp
from muzero_ray.networks.model import MuZeroNetwork
from muzero_ray.networks.notes import say_once
from muzero_ray.networks.precision import use_bf16
from muzero_ray.networks.resnet import is_resnet

REMEDY = "pip install 'muzero-ray[openvino]'"


EngineName = Literal["auto", "torch", "compiled"]


def make_engine(
    network: MuZeroNetwork, *, engine: EngineName, bf16: bool, threads: int, device: str = "cpu"
) -> InferenceEngine:
    """An engine with `network`'s weights. `auto`: the compiled one that knows its parts, or torch, saying why.

    bf16: of convolutions, where the engine and the device can; networks without any are compiled in float32. device:
    on others than the CPU torch serves. Raises ConfigError for `compiled` there, if there is none, or if what it needs
    is not installed.
    """
    if engine == "compiled" and device != "cpu":
        raise ConfigError(f"engine=compiled: computes on the CPU alone (got device={device}). Use engine=torch, or cpu")
    if engine == "torch" or device != "cpu":
        return TorchEngine(network, device=device, bf16=bf16)
    if not (is_mlp(network) or is_resnet(network)):
        parts = ", ".join(sorted({type(part).__name__ for part in network.children()}))
        if engine == "compiled":
            raise ConfigError(
                f"actors.engine=compiled: no compiled engine knows all parts of this network ({parts}). Use "
                "actors.engine=auto or torch"
            )
        say_once(f"actors.engine=auto: torch acts, since no compiled engine knows all parts of this network ({parts})")
        return TorchEngine(network, bf16=bf16)
    # Imported where they are needed: one brings numba's compiler, the other OpenVINO.
    if is_mlp(network):
        from muzero_ray.inference.mlp_engine import CompiledMlpEngine

        return CompiledMlpEngine(network)
    try:
        from muzero_ray.inference.openvino_engine import OpenVinoEngine
    except ImportError as error:
        if engine == "compiled":
            raise ConfigError(
                f"actors.engine=compiled: convolutional networks need OpenVINO, which cannot be imported ({error}). "
                f"Install it with: {REMEDY}, or use actors.engine=torch"
            ) from error
        say_once(
            f"actors.engine=auto: torch acts, since OpenVINO cannot be imported ({error}). It is several times as "
            f"fast on one CPU core: {REMEDY}"
        )
        return TorchEngine(network, bf16=bf16)
    return OpenVinoEngine(network, bf16=bf16, threads=threads)


def build_engine(config: Config, task: TaskSpec) -> InferenceEngine:
    """A network for acting. Its weights mean nothing until the first `load`."""
    return acting_engine(build_network(config, task), config)


def acting_engine(
    network: MuZeroNetwork, config: Config, *, engine: EngineName = "auto", device: str = "cpu"
) -> InferenceEngine:
    """An engine with `network`'s weights, as the actors of `config` have theirs. engine: `auto` is what they have."""
    actors = config.actors
    bf16 = use_bf16(actors.precision, torch.device(device), "actors.precision")
    chosen = actors.engine if engine == "auto" else engine
    return make_engine(network, engine=chosen, bf16=bf16, threads=actors.threads, device=device)
