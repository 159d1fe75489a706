"""How exact is a board agent? `python -m benchmarks.board_exact RUN [--games N]`, for games small enough to solve.

Two answers that do not come from our search: how often the agent loses to exact minimax (which picks at
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import torch

from muzero_ray.cli.finished_runs import trained_evaluator
from muzero_ray.envs.registry import make_environment
from muzero_ray.evaluation.opponents import MinimaxSolver
from muzero_ray.types import Array, BoolArray

BATCH = 256


def reachable_positions(config: Any) -> tuple[Array, BoolArray, list[Any]]:
    """Every non-terminal position once: frames `[N, ...]`, legal `[N, A]`, and the pyspiel states."""
    environment = make_environment(config.env)
    frames, legal, states = [environment.reset(0)], [environment.legal_actions()], [environment.state.clone()]
    seen = {str(environment.state)}
    for state in states:  # grows while it is walked: breadth first
        for action in state.legal_actions():
            child = state.child(action)
            if child.is_terminal() or str(child) in seen:
                continue
            seen.add(str(child))
            frames.append(environment.inner.restore({"seed": 0, "actions": child.history()}))
            legal.append(environment.legal_actions())
            states.append(child)
    return np.stack(frames), np.stack(legal), states


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path)
    parser.add_argument("--games", type=int, default=200, help="games on each side against minimax")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    agent, evaluator = trained_evaluator(arguments.run, opponent="minimax")
    print(f"{agent.path}: {evaluator.protocol.describe()}")
    returns = evaluator.evaluate(episodes=2 * arguments.games, seed=arguments.seed).returns
    for seat, side in enumerate(("first", "second")):
        mine = returns[seat::2]
        print(f"moving {side}: {int((mine < 0).sum())} of {len(mine)} lost, {int((mine > 0).sum())} won")

    frames, legal, states = reachable_positions(agent.config)
    policy, solver = evaluator.policy(), MinimaxSolver()
    actions = np.concatenate(
        [policy(frames[i : i + BATCH], legal[i : i + BATCH]) for i in range(0, len(frames), BATCH)]
    )
    good = np.array([action in solver.best_actions(state) for action, state in zip(actions, states, strict=True)])
    print(f"optimal move in {good.sum()} of {len(good)} reachable positions: {100 * good.mean():.2f} %")
    moves = np.array([len(state.history()) for state in states])
    by_move = "  ".join(f"{m}: {100 * good[moves == m].mean():.1f}" for m in np.unique(moves))
    print(f"% optimal by moves played: {by_move}")


if __name__ == "__main__":
    main()
