"""An evaluation as it is written down: a line of scores.jsonl, and a table of its episodes."""

from __future__ import annotations

from typing import Any

from muzero_ray.evaluation.result import Evaluation


def score_entry(kind: str, evaluation: Evaluation, step: int, env_steps: int) -> dict[str, Any]:
    """A line of scores.jsonl, with the protocol that it was measured under. step: of the weights that played."""
    return {
        "kind": kind,
        "learner_step": step,
        "env_steps": env_steps,
        "return_mean": evaluation.mean,
        "return_std": float(evaluation.returns.std()),
        "returns": evaluation.returns.tolist(),
        "faults": len(evaluation.faults),
        "cut": evaluation.cut,
        "seed": evaluation.seed,
        "protocol": {**evaluation.protocol.as_dict(), "digest": evaluation.protocol.digest},
    }


def episodes_table(evaluation: Evaluation) -> tuple[tuple[str, ...], list[tuple[int, int, float, int]]]:
    """Names of the columns, and a row for each episode."""
    episodes = enumerate(zip(evaluation.returns, evaluation.lengths, strict=True))
    rows = [(i, evaluation.seed + i, float(score), int(length)) for i, (score, length) in episodes]
    return ("episode", "seed", "return", "length"), rows
