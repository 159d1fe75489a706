"""Evaluations in short calls: long ones are shown, dropped when the time is up, and score what one long call scores."""

from __future__ import annotations

import json
import os
import re
import signal
from pathlib import Path

import pytest
import ray

import muzero_ray.actors.evaluations
from muzero_ray.control.probe import probe
from muzero_ray.control.run_state import RunState
from muzero_ray.evaluation.evaluator import Evaluator
from muzero_ray.runs.checkpoint import load_checkpoint
from muzero_ray.runs.output import learner_state
from muzero_ray.training.build import build_learner
from tests.actors.programs import messages, pid_of, ray_config, running
from tests.patience import PATIENCE

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("ray_cluster")]


def test_an_evaluation_in_slices_shows_how_far_it_is_and_survives_a_kill(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each call plays one round only. The evaluator is killed in the middle of the final evaluation."""
    monkeypatch.setattr(muzero_ray.actors.evaluations, "SLICE_SECONDS", 0.0)
    config = ray_config(run={"learner_steps": 10}, reanalyze={"ratio": 0.0})
    folder = tmp_path / "run"
    with running(config, folder) as (supervisor, workers, _, output):
        shown: list[str] = []
        evaluator = workers.one("evaluator")

        def evaluating(progress: str | None) -> None:
            shown.append(str(progress))
            if len(shown) == 4:
                os.kill(pid_of(evaluator), signal.SIGKILL)

        assert supervisor.run()
        output.evaluating = evaluating  # type: ignore[method-assign]
        supervisor.final_evaluation()
        assert evaluator.restarts == 1
    assert shown[0] == "final evaluation: 0 of 3 episodes, 3 moves"
    assert shown.count("final evaluation: 0 of 3 episodes, 6 moves") == 2  # it began again
    assert any(line.startswith("random play: ") for line in shown)
    assert shown[-1] == "None"
    final = json.loads((folder / "scores.jsonl").read_text().splitlines()[-2])
    task, checkpoint = probe(config), load_checkpoint(folder)
    learner, alone = build_learner(config, task), Evaluator(config, task)
    learner.load_state(*learner_state(checkpoint))
    alone.load(learner.weights())
    assert final["kind"] == "final"
    assert final["returns"] == alone.evaluate(episodes=3, seed=config.run.seed).returns.tolist()


def test_the_end_of_the_time_ends_an_evaluation_on_the_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Games that never end: nothing but the limit of minutes ends this run, and nothing waits for the evaluation."""
    monkeypatch.setattr(muzero_ray.actors.evaluations, "SLICE_SECONDS", 0.1)
    config = ray_config(
        env={"id": "tests.odd_environments:Endless-v0", "max_moves": None},
        run={"learner_steps": 10**6, "minutes": 1_000.0},
        reanalyze={"ratio": 0.0},
        evaluation={"interval_steps": 10},
    )
    with running(config, tmp_path / "run") as (supervisor, workers, _, output):
        shown: list[str] = []
        output.evaluating = lambda progress: shown.append(str(progress))  # type: ignore[method-assign]
        # The time is up as soon as an evaluation has shown twice how far it is.
        monkeypatch.setattr(RunState, "time_is_up", property(lambda _: len(shown) >= 2))
        assert supervisor.run()
        said = messages(output)
        supervisor._end_evaluation()
        assert ray.get(workers.one("evaluator").actor.__ray_call__.remote(lambda _: 7), timeout=PATIENCE) == 7
    moves = [
        int(re.fullmatch(r"evaluation: 0 of 2 episodes, ([\d,]+) moves", one)[1].replace(",", "")) for one in shown[:2]
    ]
    assert moves == sorted(set(moves))
    assert shown[-1] == "None"
    assert re.fullmatch(
        r"the evaluation at learner step \d+ was left unfinished and does not count: .* 1000 minutes", said[-1]
    )
    assert not (tmp_path / "run" / "scores.jsonl").exists()
