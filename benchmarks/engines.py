"""The inference engines that are compared, by the settings of `actors` that choose them, and self-play with each."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Literal

from muzero_ray.acting.build import build_self_play
from muzero_ray.acting.self_play import SelfPlay
from muzero_ray.config.schema import Config
from muzero_ray.envs.task_spec import TaskSpec
from muzero_ray.inference.build import REMEDY, make_engine
from muzero_ray.inference.engine import InferenceEngine
from muzero_ray.networks.build import build_network
from muzero_ray.networks.flat import flatten_state
from muzero_ray.networks.model import MuZeroNetwork
from muzero_ray.types import Weights, WeightsVersion


@dataclass(frozen=True)
class Choice:
    """Settings `actors.engine` and `actors.precision`."""

    engine: Literal["torch", "compiled"]
    precision: Literal["float32", "bf16"] = "float32"

    def make(self, network: MuZeroNetwork) -> InferenceEngine:
        """On one thread, with the weights of `network`."""
        return make_engine(network, engine=self.engine, bf16=self.precision == "bf16", threads=1)

    def apply(self, config: Config) -> Config:
        return changed(config, "actors", engine=self.engine, precision=self.precision, threads=1)


Engines = dict[str, Choice]

MLP_ENGINES: Engines = {"torch-fp32": Choice("torch"), "compiled-fp32": Choice("compiled")}
CONV_ENGINES: Engines = {"torch-fp32": Choice("torch"), "torch-bf16": Choice("torch", "bf16")}
"""The first of each is the reference that the others are compared with."""

if find_spec("openvino") is not None:
    CONV_ENGINES["openvino-bf16"] = Choice("compiled", "bf16")
else:
    print(f"openvino is not installed, so there are no rows of openvino-bf16. Install it: {REMEDY}", file=sys.stderr)


def engines_for(config: Config) -> Engines:
    """Those that can run the networks of `config`."""
    return MLP_ENGINES if config.network.kind == "mlp" else CONV_ENGINES


def changed(config: Config, part: str, **changes: object) -> Config:
    """`config` with some settings of one part changed."""
    return Config.model_validate({**config.to_dict(), part: {**config.to_dict()[part], **changes}})


def fresh_weights(config: Config, task: TaskSpec) -> Weights:
    """Those of a run before its first update."""
    return Weights(WeightsVersion(0, 0), flatten_state(build_network(config, task)))


def fresh_player(choice: Choice, config: Config, task: TaskSpec) -> SelfPlay:
    """Actor 0 of a run before its first update."""
    player = build_self_play(choice.apply(config), task, actor=0)
    player.set_weights(fresh_weights(config, task))
    return player
