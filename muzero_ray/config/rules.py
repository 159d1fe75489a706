"""What settings of different parts of a config ask of each other."""

from __future__ import annotations

from typing import Protocol

from muzero_ray.config.learning import (
    EnvConfig,
    LearnerConfig,
    ReanalyzeConfig,
    ReplayConfig,
)
from muzero_ray.config.network import NetworkConfig, ResnetConfig
from muzero_ray.config.running import ActorsConfig, EvaluationConfig, RunConfig
from muzero_ray.config.search import SearchConfig


class Sections(Protocol):
    """The sections of a config: `schema.Config`, which asks for this check."""

    @property
    def run(self) -> RunConfig: ...
    @property
    def env(self) -> EnvConfig: ...
    @property
    def network(self) -> NetworkConfig: ...
    @property
    def search(self) -> SearchConfig: ...
    @property
    def replay(self) -> ReplayConfig: ...
    @property
    def learner(self) -> LearnerConfig: ...
    @property
    def reanalyze(self) -> ReanalyzeConfig: ...
    @property
    def actors(self) -> ActorsConfig: ...
    @property
    def evaluation(self) -> EvaluationConfig: ...


def check_across(config: Sections) -> None:
    """Raises ValueError (setting, value, reason, remedy) for the first contradiction; pydantic gives it its place."""
    if config.learner.batch_size > config.replay.min_size:
        raise ValueError(
            f"learner.batch_size={config.learner.batch_size} is above replay.min_size={config.replay.min_size}: the "
            "first batches would repeat the same few positions. Raise replay.min_size or lower the batch size"
        )
    if config.env.opening_moves and config.env.kind != "openspiel":
        raise ValueError(
            f"env.opening_moves={config.env.opening_moves} is for board games, and env.kind={config.env.kind} has "
            "none. Leave it at 0"
        )
    if config.env.kind == "atari" and config.network.kind == "mlp":
        raise ValueError("network.kind=mlp cannot read the images of env.kind=atari. Use network.kind=resnet")
    if config.env.kind == "atari" and isinstance(config.network, ResnetConfig):
        size, factor = config.env.atari.image_size, config.network.downsample
        if size % factor:
            raise ValueError(
                f"env.atari.image_size={size} is not a multiple of network.downsample={factor}: the latent would not "
                f"be whole. Use {size // factor * factor or factor} or another downsample"
            )
    if config.run.serial and config.replay.shards > 1:
        raise ValueError(
            f"replay.shards={config.replay.shards} asks for as many processes, and run.serial=True has only one. Use "
            "replay.shards=1"
        )
    if config.run.serial and config.learner.workers > 1:
        raise ValueError(
            f"learner.workers={config.learner.workers} asks for as many processes, and run.serial=True has only one. "
            "Use learner.workers=1"
        )
    _check_instances(config)
    gpus, device = config.learner.gpus, config.learner.device
    if config.learner.workers > 1 and gpus < 1 and (device == "cuda" or (device == "auto" and gpus > 0)):
        raise ValueError(
            f"learner.gpus={gpus:g} for each of learner.workers={config.learner.workers}: two of them cannot "
            "train together on one GPU. Use learner.gpus=1, or learner.device=cpu"
        )
    if config.run.address is not None and device.startswith("cuda") and gpus == 0:
        raise ValueError(
            f"learner.device={device} needs a GPU, and learner.gpus=0 reserves none: on the cluster of "
            f"run.address={config.run.address} another program may be using it. Use learner.gpus=1"
        )
    if config.actors.count % config.replay.shards:
        raise ValueError(
            f"replay.shards={config.replay.shards} does not divide actors.count={config.actors.count}: one shard would "
            "take in more games than another, and forget them sooner. Make actors.count a multiple of it"
        )


def _check_instances(config: Sections) -> None:
    """Self-play and evaluation hold environments at once; the serial runner holds them by turns."""
    allowed, count, places = config.env.instances, config.actors.count, config.actors.envs_per_actor
    if allowed is None:
        return
    if config.run.serial and places > allowed:
        raise ValueError(
            f"actors.envs_per_actor={places} is above env.instances={allowed}: self-play would hold more environments "
            f"than can exist. Use actors.envs_per_actor={allowed}"
        )
    if not config.run.serial and count * places >= allowed:
        raise ValueError(
            f"env.instances={allowed} is too few for actors.count={count} with actors.envs_per_actor={places} each, "
            f"and one for the evaluations beside them: that makes {count * places + 1}. Use fewer, or "
            "run.serial=True, where self-play and evaluations take turns"
        )
