"""From settings to a learner: device, optimizer, network."""

from __future__ import annotations

from functools import partial

import numpy as np
import torch

from muzero_ray.config.schema import Config, LearnerConfig
from muzero_ray.envs.task_spec import TaskSpec
from muzero_ray.errors import ConfigError
from muzero_ray.networks.build import make_network
from muzero_ray.networks.precision import use_bf16
from muzero_ray.training.augmentation import augment
from muzero_ray.training.data_parallel import DataParallelGroup
from muzero_ray.training.learner import Learner
from muzero_ray.training.losses import loss_terms
from muzero_ray.training.schedules import learning_rate
from muzero_ray.types import Batch


def resolve_device(name: str) -> torch.device:
    """`auto` is cuda if there is one, else cpu. ConfigError if the device asked for is not there."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    device = torch.device(name)
    missing = (device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count()) or (
        device.type == "mps" and not torch.backends.mps.is_available()
    )
    if missing:
        raise ConfigError(f"learner.device={name}: this machine has no such device. Use auto or cpu")
    return device


def make_optimizer(cfg: LearnerConfig, network: torch.nn.Module) -> torch.optim.Optimizer:
    """AdamW or SGD; weights decay, biases and normalisation (one-dimensional parameters) do not."""
    parameters = list(network.parameters())
    groups = [
        {"params": [p for p in parameters if p.dim() > 1], "weight_decay": cfg.weight_decay},
        {"params": [p for p in parameters if p.dim() <= 1], "weight_decay": 0.0},
    ]
    if cfg.optimizer == "sgd":
        return torch.optim.SGD(groups, lr=cfg.lr, momentum=cfg.momentum, fused=True)
    return torch.optim.AdamW(groups, lr=cfg.lr, fused=True)


def make_learner(
    cfg: Config, *, observation_shape: tuple[int, ...], num_actions: int, group: DataParallelGroup | None = None
) -> Learner:
    """Learner with freshly initialised weights (deterministic in `run.seed`). observation_shape: stacked.

    group: the ranks that it trains with, if it is to have only its part of each batch.
    """
    settings = cfg.learner
    consistency = settings.consistency_weight > 0
    if consistency and settings.batch_size // settings.workers * settings.unroll_steps < 2:
        raise ConfigError(
            f"learner.batch_size={settings.batch_size} with learner.unroll_steps={settings.unroll_steps} and "
            f"learner.workers={settings.workers}: the consistency loss normalises over at least two latents of each "
            "worker. Raise learner.batch_size, or set learner.consistency_weight to 0"
        )
    kinds, rank = settings.augmentation, 0 if group is None else group.rank
    if kinds and len(observation_shape) != 3:
        raise ConfigError(
            f"learner.augmentation={list(kinds)} changes images, and observations of shape {observation_shape} are "
            "none. Leave it empty"
        )
    if "mirror" in kinds and num_actions != observation_shape[-1]:
        raise ConfigError(
            f"learner.augmentation={list(kinds)}: mirror takes actions for columns, and there are "
            f"{num_actions} actions for {observation_shape[-1]} columns. Leave it out"
        )

    def augmented(batch: Batch, step: int) -> Batch:
        # Drawn anew for each step and rank: there is no state to save, and a resumed run sees the same images.
        return augment(batch, kinds, np.random.default_rng([cfg.run.seed, 3_000_001, rank, step]))

    device = resolve_device(settings.device)
    network = make_network(
        cfg.network,
        observation_shape=observation_shape,
        num_actions=num_actions,
        consistency=consistency,
        seed=cfg.run.seed,
    ).to(device)
    return Learner(
        network,
        make_optimizer(settings, network),
        partial(
            learning_rate,
            base=settings.lr,
            schedule=settings.lr_schedule,
            final=settings.lr_final,
            warmup=settings.warmup_steps,
            total=cfg.run.learner_steps,
        ),
        device=device,
        bf16=use_bf16(settings.precision, device, "learner.precision"),
        terms=loss_terms(settings),
        max_grad_norm=settings.max_grad_norm,
        ema_decay=settings.ema_decay,
        max_skipped=settings.max_skipped,
        augment=augmented if kinds else None,
        group=group,
    )


def build_learner(config: Config, task: TaskSpec, group: DataParallelGroup | None = None) -> Learner:
    """The learner, with freshly initialised weights; alone, or one rank of `group`."""
    return make_learner(
        config, observation_shape=task.observation_shape, num_actions=task.spec.num_actions, group=group
    )
