"""A baseline for scores: stable-baselines3's PPO on a preset's task. `python -m benchmarks.ppo PRESET --steps N`

It trains on the environments of this project for N environment steps and is scored by `play_episodes`, taking the most
likely action. So all of the evaluation protocol but the search is that of `launch.py train PRESET`. Settings are those
of RL Baselines3 Zoo for the task; without such, those for Atari if the preset's network is a resnet, or else the
defaults of stable-baselines3. Needs the extra `baselines`.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import gymnasium
import numpy as np
import torch
from stable_baselines3 import PPO
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from stable_baselines3.common.vec_env import DummyVecEnv

from muzero_ray.acting.frame_stacker import FrameStacker
from muzero_ray.cli.commands import TrainCommand
from muzero_ray.cli.parse import parse_args
from muzero_ray.config.schema import Config
from muzero_ray.control.probe import probe
from muzero_ray.envs.registry import make_environment
from muzero_ray.evaluation.environments import environment_factory
from muzero_ray.evaluation.evaluator import play_episodes
from muzero_ray.evaluation.protocol import evaluation_protocol
from muzero_ray.types import Array, BoolArray, IntArray

SMALLEST_IMAGE = 36
"""Pixels per side that the convolutions of stable-baselines3 need at least."""


def linear(start: float) -> Callable[[float], float]:
    """A schedule from `start` down to 0, as a function of the share of training that is left."""
    return lambda left: start * left


ATARI: dict[str, Any] = {
    "envs": 8,
    "n_steps": 128,
    "batch_size": 256,
    "n_epochs": 4,
    "gamma": 0.99,
    "gae_lambda": 0.95,
    "learning_rate": linear(2.5e-4),
    "clip_range": linear(0.1),
    "ent_coef": 0.01,
    "vf_coef": 0.5,
}
"""The Zoo's settings for Atari. envs: environments in parallel; the others are arguments of PPO."""

ZOO: dict[str, dict[str, Any]] = {
    "CartPole-v1": {
        "envs": 8,
        "n_steps": 32,
        "batch_size": 256,
        "n_epochs": 20,
        "gamma": 0.98,
        "gae_lambda": 0.8,
        "learning_rate": linear(1e-3),
        "clip_range": linear(0.2),
    },
    "Acrobot-v1": {"envs": 16, "n_steps": 256, "n_epochs": 4, "gamma": 0.99, "gae_lambda": 0.94},
    "LunarLander-v3": {
        "envs": 16,
        "n_steps": 1024,
        "batch_size": 64,
        "n_epochs": 4,
        "gamma": 0.999,
        "gae_lambda": 0.98,
        "ent_coef": 0.01,
    },
}
"""The Zoo's settings by environment id."""


class TrainingEnvironment(gymnasium.Env[Array, Any]):
    """An environment of this project for gymnasium, frames stacked.

    If observations are uint8 images, rewards are clipped to their sign, as is usual for PPO.
    """

    def __init__(self, config: Config, seed: int) -> None:
        """seed: games take the seeds after it, whatever `reset` is given."""
        self._environment = make_environment(config.env)
        spec = self._environment.spec
        self._stacker = FrameStacker(1, spec.observation_shape, spec.observation_dtype, config.env.frame_stack)
        self._clip = spec.observation_dtype == "uint8"
        self._seed = seed
        shape = self._stacker.stacked.shape[1:]
        low, high = (0, 255) if self._clip else (-np.inf, np.inf)
        self.observation_space = gymnasium.spaces.Box(low, high, shape, np.dtype(spec.observation_dtype).type)
        self.action_space = gymnasium.spaces.Discrete(spec.num_actions)

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Array, dict[str, Any]]:
        del seed, options
        self._seed += 1
        self._stacker.start(0, self._environment.reset(self._seed))
        return self._stacker.stacked[0].copy(), {}

    def step(self, action: Any) -> tuple[Array, float, bool, bool, dict[str, Any]]:
        step = self._environment.step(int(action))
        self._stacker.push(0, step.observation)
        reward = float(np.sign(step.reward)) if self._clip else step.reward
        return self._stacker.stacked[0].copy(), reward, step.terminated, step.truncated, {}


class SmallConvolution(BaseFeaturesExtractor):
    """For images smaller than `SMALLEST_IMAGE`, such as MinAtar's: 16 filters of 3x3, 128 units (Young & Tian 2019)."""

    def __init__(self, space: gymnasium.spaces.Box) -> None:
        super().__init__(space, features_dim=128)
        channels, height, width = space.shape
        self.layers = torch.nn.Sequential(
            *(torch.nn.Conv2d(channels, 16, 3), torch.nn.ReLU(), torch.nn.Flatten()),
            *(torch.nn.Linear(16 * (height - 2) * (width - 2), 128), torch.nn.ReLU()),
        )

    def forward(self, observations: torch.Tensor) -> torch.Tensor:
        features: torch.Tensor = self.layers(observations)
        return features


def train(config: Config, steps: int) -> PPO:
    """PPO after `steps` environment steps."""
    settings = dict(ZOO.get(config.env.id, ATARI if config.network.kind == "resnet" else {"envs": 8}))
    count, seed = settings.pop("envs"), config.run.seed
    environments = DummyVecEnv(
        [lambda i=i: TrainingEnvironment(config, seed + 1_000_000 * (i + 1)) for i in range(count)]
    )
    shape = environments.observation_space.shape
    image = len(shape) == 3
    small = image and min(shape[1:]) < SMALLEST_IMAGE
    extractor = {"features_extractor_class": SmallConvolution} if small else {}
    return PPO(
        "CnnPolicy" if image else "MlpPolicy",
        environments,
        seed=seed,
        device="cpu",
        policy_kwargs=extractor,
        **settings,
    ).learn(steps)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("preset", help="`launch.py presets` lists them")
    parser.add_argument("--steps", type=int, required=True, help="environment steps to train for")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0], help="one training for each (default: 0)")
    parser.add_argument("--options", default="", help="of `launch.py train`, such as '--env.id MinAtar/Freeway-v1'")
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    for seed in chosen.seeds:
        command = parse_args(["train", chosen.preset, "--seed", str(seed), *chosen.options.split()])
        assert isinstance(command, TrainCommand)
        config = command.config
        begin = time.monotonic()
        model = train(config, chosen.steps)
        seconds = time.monotonic() - begin

        def policy(observations: Array, legal: BoolArray, model: PPO = model) -> IntArray:
            del legal
            actions: IntArray = model.predict(observations, deterministic=True)[0].astype(np.int32)
            return actions

        protocol = evaluation_protocol(config, probe(config).spec)
        protocol = replace(protocol, search="PPO", simulations=0, search_settings={}, discount=None)
        evaluation = play_episodes(
            environment_factory(config),
            policy,
            episodes=config.evaluation.final_episodes,
            seed=seed,
            frame_stack=config.env.frame_stack,
            protocol=protocol,
        )
        print(
            f"PPO {config.env.id} seed={seed} steps={model.num_timesteps} seconds={seconds:.0f} {evaluation.summary()}"
        )


if __name__ == "__main__":
    main()
