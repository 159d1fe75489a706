"""Act in a loop of one's own, and look into the search: `python examples/own_loop.py runs/NAME`.

The run may be of any environment of gymnasium; nothing but its folder is needed.
"""

from __future__ import annotations

import sys

import gymnasium
import numpy as np

import muzero_ray as mz


def main(run: mz.Run, moves: int = 20) -> None:
    """Play `moves` moves, and say for each what the agent expects of it."""
    agent = mz.Agent.load(run, checkpoint="last", simulations=50)
    settings = run.config.to_dict()["env"]
    env = gymnasium.make(settings["id"], **settings["kwargs"])
    observation, info = env.reset(seed=0)
    agent.reset()
    frames = []
    for move in range(moves):
        # `act` keeps the frames by itself; `plan` is given them, the newest last.
        frames = [*frames, observation][-settings["frame_stack"] :]
        legal = info.get("action_mask")
        plan = agent.plan([frames], None if legal is None else [legal])
        action = agent.act(observation, legal)
        tried = np.flatnonzero(plan.visits[0])
        print(
            f"move {move}: action {action}; value {plan.values[0]:.2f}, without a search {plan.network_values[0]:.2f}"
        )
        for one in tried:
            print(
                f"  {one}: {plan.visits[0, one]} of {plan.visits[0].sum()} simulations, q {plan.q_values[0, one]:.2f}, "
                f"prior {plan.prior[0, one]:.2f}"
            )
        observation, _, terminated, truncated, info = env.step(action)
        if terminated or truncated:
            break


if __name__ == "__main__":
    main(mz.Run(sys.argv[1]))
