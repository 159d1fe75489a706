"""`launch.py evaluate` and `play`: a finished run's weights, in this process."""

from __future__ import annotations

import json
from dataclasses import asdict

import torch

from muzero_ray.cli import EvaluateCommand, PlayCommand
from muzero_ray.config import Config
from muzero_ray.errors import MuZeroRayError
from muzero_ray.runtime.build import TaskShape, build_learner, probe
from muzero_ray.runtime.checkpoint import Checkpoint
from muzero_ray.runtime.evaluation import Evaluator
from muzero_ray.runtime.run_output import learner_state, open_run


def trained_evaluator(config: Config, shape: TaskShape, checkpoint: Checkpoint, *, opponent: str) -> Evaluator:
    """The evaluator of a run with the weights of `checkpoint`."""
    learner = build_learner(config, shape)
    learner.load_state(*learner_state(checkpoint))
    evaluator = Evaluator(config, shape, opponent=opponent)
    evaluator.load(learner.weights())
    return evaluator


def evaluate_run(command: EvaluateCommand) -> None:
    """Print the score of a run's newest weights; the last line is for programs."""
    _, config, checkpoint = open_run(command.run)
    torch.set_num_threads(config.actors.learner_threads)
    evaluator = trained_evaluator(config, probe(config), checkpoint, opponent=command.opponent)
    episodes = command.episodes or config.evaluation.final_episodes
    evaluation = evaluator.evaluate(episodes=episodes, seed=command.seed)
    if command.as_json:
        print(
            json.dumps(
                {
                    "return_mean": evaluation.mean,
                    "return_std": float(evaluation.returns.std()),
                    "episodes": episodes,
                    "env_steps": int(evaluation.lengths.sum()),
                    "returns": evaluation.returns.tolist(),
                    "seed": command.seed,
                    "learner_step": checkpoint.step,
                    "protocol": {**asdict(evaluation.protocol), "digest": evaluation.protocol.digest},
                }
            )
        )
        return
    print(f"checkpoint {checkpoint.path}, protocol {evaluation.protocol.digest}: {evaluation.protocol.describe()}")
    if evaluation.protocol.opponent:
        for seat, returns in (("first", evaluation.returns[0::2]), ("second", evaluation.returns[1::2])):
            wins, losses = int((returns > 0).sum()), int((returns < 0).sum())
            print(f"moving {seat}: {wins} won, {len(returns) - wins - losses} drawn, {losses} lost")
    print(evaluation.summary())


def play_run(command: PlayCommand) -> None:
    """Let a run's newest weights play; writes one mp4 per episode where the environment renders."""
    folder, config, checkpoint = open_run(command.run)
    evaluator = trained_evaluator(config, probe(config), checkpoint, opponent="random")
    for episode in range(command.episodes):
        evaluation = evaluator.evaluate(episodes=1, seed=command.seed + episode, record=True)
        if evaluation.video is None:
            raise MuZeroRayError(f"{config.env.id} has no rgb_array rendering, so there is nothing to watch")
        path = command.video or folder / "videos" / f"play-{checkpoint.step}-seed{command.seed + episode}.mp4"
        if command.video and command.episodes > 1:
            path = path.with_stem(f"{path.stem}-{episode}")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(evaluation.video)
        print(f"return={evaluation.mean:g} length={int(evaluation.lengths[0])} video={path}")
