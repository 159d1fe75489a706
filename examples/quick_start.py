"""Train CartPole for a minute, load the agent, and see how well it plays. Run: `python examples/quick_start.py`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import gymnasium

import muzero_ray as mz


def main(settings: Mapping[str, Any] | None = None) -> None:
    """settings: change the preset's, by dotted name: `{"learner.lr": 1e-3}`."""
    run = mz.train("cartpole", {"run.minutes": 1, **(settings or {})}, serial=True)

    agent = mz.Agent.load(run)
    env = gymnasium.make("CartPole-v1")
    observation, _ = env.reset(seed=1)
    agent.reset()
    score, done = 0.0, False
    while not done:
        observation, reward, terminated, truncated, _ = env.step(agent.act(observation))
        score += float(reward)
        done = terminated or truncated
    print(f"one game in a loop of our own: return {score:g}")

    print(f"an evaluation: {mz.evaluate(run, episodes=5).summary()}")
    metrics = run.metrics()  # a column for each metric, a row for every `run.log_steps` learner steps
    print(f"learner steps: {metrics['learner_steps']}, losses: {metrics['loss/total']}")


if __name__ == "__main__":
    main()
