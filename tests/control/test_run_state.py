"""The state of a run: schedules in closed form, budgets that never overstep, an exact way to disk and back."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from muzero_ray.acting.rollout_stats import Episode, RolloutStats
from muzero_ray.config.schema import Config
from muzero_ray.control.run_state import RunState
from muzero_ray.control.train_tally import TrainTally
from muzero_ray.evaluation.protocol import EvaluationProtocol
from muzero_ray.evaluation.result import Evaluation
from muzero_ray.replay.metrics import joint_replay_metrics, replay_metrics
from muzero_ray.training.results import TrainResult, TrainStats
from muzero_ray.types import WeightsVersion
from tests.replay.games import make_buffer, make_game


def run_state_of(**sections: dict[str, Any]) -> RunState:
    return RunState(Config.model_validate(sections))


def played(
    transitions: int, *, inserted: int | None = None, scores: tuple[float, ...] = (), step: int = 0
) -> RolloutStats:
    return RolloutStats(
        transitions=transitions,
        inserted=transitions if inserted is None else inserted,
        episodes=tuple(Episode(score, int(score)) for score in scores),
        seconds=0.5,
        search_seconds=0.25,
        simulations=4 * transitions,
        depth=1.5,
        root_entropy=0.5,
        kl_prior=0.25,
        version=WeightsVersion(0, step),
    )


def trained(steps: int, to: int, **losses: float) -> TrainStats:
    return TrainStats(steps=steps, seconds=0.1, losses=losses, skipped=0, weights_step=to, validation={})


def evaluation(*returns: float) -> Evaluation:
    protocol = EvaluationProtocol({"id": "test"}, "gumbel", 4, False, None)
    return Evaluation(np.array(returns, np.float32), np.array([7] * len(returns), np.int32), protocol, 0)


@pytest.mark.parametrize(
    ("step", "temperature", "beta"),
    [(0, 1.0, 0.4), (499, 1.0, 0.6994), (500, 0.5, 0.7), (749, 0.5, 0.8494), (750, 0.25, 0.85), (1000, 0.25, 1.0)],
)
def test_schedules_run_over_learner_steps(step: int, temperature: float, beta: float) -> None:
    run_state = run_state_of(run={"learner_steps": 1000}, search={"kind": "puct"}, replay={"priority_beta": 0.4})
    run_state.learner_steps = step
    assert run_state.temperature == temperature
    assert run_state.beta == pytest.approx(beta, abs=1e-12)
    assert run_state.progress == step / 1000
    run_state.learner_steps = 5000  # resumed under a smaller budget
    assert (run_state.temperature, run_state.beta) == (0.25, 1.0)


BOUNDARIES = st.integers(1, 60)


@settings(max_examples=60, deadline=None)
@given(
    intervals=st.tuples(BOUNDARIES, BOUNDARIES, BOUNDARIES),
    total=st.integers(1, 150),
    ratio=st.floats(0.1, 20.0),
    rollout=st.integers(1, 100),
    shares=st.lists(st.floats(0.0, 1.0), min_size=1, max_size=20),
)
def test_training_never_steps_over_a_row_an_evaluation_a_checkpoint_or_the_end(
    intervals: tuple[int, int, int], total: int, ratio: float, rollout: int, shares: list[float]
) -> None:
    """And never stands still: with budgets used up in any portions, the run gets to its last step."""
    log, checkpoint, evaluate = intervals
    run_state = run_state_of(
        run={"learner_steps": total, "log_steps": log, "checkpoint_steps": checkpoint},
        evaluation={"interval_steps": evaluate},
        replay={"samples_per_insert": ratio, "min_size": 40},
        learner={"batch_size": 8},
        actors={"count": 1, "rollout_steps": rollout},
    )
    seen: dict[str, list[int]] = {"log": [], "checkpoint": [], "evaluate": []}
    turn = 0
    while run_state.stop_reason() is None:
        transitions, budget = run_state.rollout_budget(), run_state.train_budget()
        assert transitions <= rollout
        assert transitions > 0 or budget > 0
        share = shares[turn % len(shares)]
        if transitions:
            run_state.played(played(max(1, int(share * transitions))))
        if budget:
            before = run_state.learner_steps
            for interval in intervals:
                assert budget <= interval - before % interval
            assert budget <= total - before
            steps = max(1, int(share * budget))
            run_state.trained(trained(steps, before + steps))
        for task, steps_seen in seen.items():
            if run_state.due(task):  # type: ignore[arg-type]
                run_state.done(task)  # type: ignore[arg-type]
                assert not run_state.due(task)  # type: ignore[arg-type]
                steps_seen.append(run_state.learner_steps)
        turn += 1
    assert run_state.learner_steps == total
    assert (run_state.rollout_budget(), run_state.train_budget()) == (0, 0)
    for task, interval in (("log", log), ("checkpoint", checkpoint), ("evaluate", evaluate)):
        assert seen[task] == list(range(interval, total + 1, interval))
    # The ratio: owed samples are what was inserted past the warm-up, times the ratio, less what was trained on.
    owed = ratio * (run_state.limiter.inserted - 40) - 8 * total
    assert -1e-6 <= owed <= ratio * max(4 * rollout, 8 / ratio + 1) + 1e-6


def test_due_notices_an_interval_that_was_stepped_over() -> None:
    """As with a learner that trains several calls while the checkpoint is written."""
    run_state = run_state_of(run={"checkpoint_steps": 10})
    assert not run_state.due("checkpoint")
    for step, due in ((9, False), (10, True), (25, True)):
        run_state.learner_steps = step
        assert run_state.due("checkpoint") is due
    run_state.done("checkpoint")
    for step, due in ((29, False), (30, True)):
        run_state.learner_steps = step
        assert run_state.due("checkpoint") is due


def test_the_learner_waits_for_the_first_transitions_and_then_for_its_ratio() -> None:
    run_state = run_state_of(
        replay={"min_size": 100, "samples_per_insert": 2.0},
        learner={"batch_size": 10},
        actors={"count": 2, "rollout_steps": 30},
    )
    run_state.played(played(100))
    assert run_state.train_budget() == 0
    run_state.played(played(60, inserted=25))  # the other 35 are in games still in flight
    assert run_state.env_steps == 160
    assert run_state.train_budget() == 25 * 2 // 10
    run_state.trained(trained(3, 3))
    assert run_state.train_budget() == 2
    # Two actors may be four rollouts ahead each: 240 transitions, of which 10 are (20 samples owed).
    assert run_state.rollout_budget() == 30
    run_state.played(played(220, inserted=220))
    assert run_state.rollout_budget() == 240 - 10 - 220


@pytest.mark.parametrize(
    ("limit", "reason"),
    [
        ({"learner_steps": 50}, "50 learner steps"),
        ({"episodes": 3}, "3 episodes"),
        ({"minutes": 2.0}, "2 minutes"),
    ],
)
def test_each_limit_stops_the_run(limit: dict[str, Any], reason: str, monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1000.0
    monkeypatch.setattr("muzero_ray.control.run_state.time.monotonic", lambda: now)
    run_state = run_state_of(run=limit, replay={"min_size": 64, "samples_per_insert": 8.0}, learner={"batch_size": 8})
    run_state.played(played(200, scores=(5.0, 6.0)))
    run_state.learner_steps = 49
    now += 119.0
    assert run_state.stop_reason() is None
    assert run_state.rollout_budget() > 0
    assert run_state.train_budget() > 0
    run_state.played(played(1, scores=(5.0,)))
    run_state.learner_steps = 50
    now += 1.0
    assert run_state.stop_reason() == reason
    assert (run_state.rollout_budget(), run_state.train_budget()) == (0, 0)


def test_reanalyze_gets_its_share_of_what_was_played() -> None:
    run_state = run_state_of(reanalyze={"ratio": 0.5})
    run_state.played(played(101))
    assert run_state.reanalyze_budget() == 50
    run_state.reanalyzed = 70  # the last game was longer than the budget
    assert run_state.reanalyze_budget() == -20
    assert run_state_of().reanalyze_budget() == 0


def test_a_row_combines_what_happened_since_the_last() -> None:
    run_state = run_state_of()
    run_state.learner_steps = 10
    run_state.played(played(30, inserted=20, scores=(4.0, 8.0), step=8))
    run_state.played(played(10, inserted=20, scores=(3.0,), step=4))
    run_state.trained(TrainStats(2, 0.1, {"loss/total": 1.0}, 1, 12, {}))
    run_state.trained(TrainStats(3, 0.1, {"loss/total": 2.0}, 0, 15, {}))
    row = run_state.row()
    assert (row["env_steps"], row["learner_steps"], row["episodes"]) == (40, 15, 3)
    assert row["train/return_mean"] == row["train/length_mean"] == 5.0
    assert row["actors/weights_lag"] == (2 + 6) / 2
    assert row["loss/total"] == 1.5
    assert row["learner/skipped"] == 1
    assert row["replay/samples_per_insert"] == 5 * Config().learner.batch_size / 40
    assert row["search/depth"] == 1.5
    assert "loss/total" not in run_state.row()


def test_the_best_score_is_kept_and_equal_scores_count_as_progress() -> None:
    run_state = run_state_of()
    assert [run_state.evaluated(evaluation(*r)) for r in ((1.0, 3.0), (1.0,), (2.0,), (4.0,))] == [
        True,
        False,
        True,
        True,
    ]
    assert (run_state.best_score, run_state.last_score) == (4.0, 4.0)
    run_state.evaluated(evaluation(0.0))
    assert (run_state.best_score, run_state.last_score) == (4.0, 0.0)
    assert run_state.display_values()["best_score"] == 4.0
    assert run_state.row()["eval/return_mean"] == 0.0


def test_a_book_survives_json_and_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr("muzero_ray.control.run_state.time.monotonic", lambda: now)
    sections = {"run": {"learner_steps": 100, "log_steps": 10}, "reanalyze": {"ratio": 1.0}}
    first = run_state_of(**sections)
    first.played(played(3000, inserted=2900, scores=(1.0, 0.1, 7.0), step=2))
    first.trained(TrainStats(12, 0.1, {"loss/total": 0.1, "loss/value": 1 / 3}, 2, 12, {}))
    first.evaluated(evaluation(5.0, 0.3))
    first.reanalyzed = 77
    first.done("evaluate")
    now = 30.0
    saved = json.dumps(first.state())
    now = 500.0  # the time between two parts of a run does not count
    second = run_state_of(**sections)
    second.load_state(json.loads(saved))
    assert second.seconds == 30.0
    assert second.resumes == 1
    again = json.loads(json.dumps(second.state()))
    assert again == json.loads(saved) | {"resumes": 1}
    for run_state in (first, second):
        run_state.played(played(10, scores=(2.0,), step=12))
        run_state.trained(trained(1, 13, **{"loss/total": 0.7}))
    for name in ("rollout_budget", "train_budget", "reanalyze_budget", "display_values", "stop_reason"):
        assert getattr(first, name)() == getattr(second, name)(), name
    assert [first.due(task) for task in ("log", "evaluate", "checkpoint")] == [True, False, False]
    assert [second.due(task) for task in ("log", "evaluate", "checkpoint")] == [True, False, False]
    one, other = first.row(), second.row()
    assert one.keys() == other.keys()
    for name in ("train/return_mean", "loss/total", "loss/value", "eval/return_std", "actors/weights_lag"):
        assert one[name] == other[name], name


def test_incarnations_differ_over_restarts_and_resumes() -> None:
    run_state, seen = run_state_of(), set()
    for _ in range(3):
        seen |= {run_state.incarnation(restarts) for restarts in range(4)}
        saved = run_state.state()
        run_state = run_state_of()
        run_state.load_state(saved)
    assert len(seen) == 12
    # A later part of a run is newer than everything before, so that a zombie's weights can be told by their number.
    assert run_state.incarnation() > max(seen)


def test_a_tally_is_the_mean_over_updates_that_were_made() -> None:
    tally = TrainTally()
    for value, skipped in ((1.0, False), (None, True), (4.0, False)):
        losses = {} if value is None else {"loss/total": value, "learner/lr": value / 10}
        tally.add(TrainResult(losses, np.zeros(1, np.float32), skipped=skipped))
    stats = tally.stats(9, {"model/value_bias": 0.5})
    assert (stats.steps, stats.skipped, stats.weights_step) == (3, 1, 9)
    assert stats.losses == pytest.approx({"loss/total": 2.5, "learner/lr": 0.25})
    only_skipped = TrainTally()
    only_skipped.add(TrainResult({}, np.zeros(1, np.float32), skipped=True))
    assert only_skipped.stats(0, {}).losses == {}


def test_replay_metrics_read_the_buffer() -> None:
    buffer, rng = make_buffer(), np.random.default_rng(0)
    for seq, (steps, step) in enumerate(((10, 0), (30, 8))):
        buffer.add(make_game(rng, steps, seq=seq, step=step))
    metrics = replay_metrics(buffer, learner_step=20)
    assert (metrics["replay/size"], metrics["replay/games"], metrics["replay/bytes"]) == (40, 2, buffer.bytes)
    assert metrics["replay/target_age"] == (10 * 20 + 30 * 12) / 40
    assert metrics["replay/priority_max"] == pytest.approx(buffer.priority_max)


def test_metrics_of_shards_are_those_of_one_replay() -> None:
    whole, parts, rng = make_buffer(), [make_buffer() for _ in range(3)], np.random.default_rng(0)
    for seq, (steps, step, shard) in enumerate(((10, 0, 0), (30, 8, 1), (5, 3, 1))):  # the last shard is empty
        game = make_game(rng, steps, seq=seq, step=step)
        whole.add(game)
        parts[shard].add(game)
    joint = joint_replay_metrics([replay_metrics(part, learner_step=20) for part in parts])
    assert joint == pytest.approx(replay_metrics(whole, learner_step=20))
    assert joint_replay_metrics([replay_metrics(make_buffer(), 20)]) == replay_metrics(make_buffer(), 20)


def test_a_restored_learner_draws_again_for_the_steps_it_makes_again() -> None:
    run_state = run_state_of(replay={"min_size": 64, "samples_per_insert": 2.0}, learner={"batch_size": 16})
    run_state.played(played(64 + 80))
    assert run_state.train_budget() == 10
    run_state.trained(trained(10, 10))
    assert run_state.train_budget() == 0
    run_state.learner_at(4)  # its last checkpoint
    assert (run_state.learner_steps, run_state.train_budget()) == (4, 6)
    run_state.learner_at(7)  # what it did in a call whose answer was lost
    assert (run_state.learner_steps, run_state.train_budget()) == (7, 3)
    run_state.learner_at(7)
    assert run_state.limiter.sampled == 7 * 16


def test_an_evaluation_is_done_as_of_the_weights_it_scored() -> None:
    run_state = run_state_of(evaluation={"interval_steps": 10})
    run_state.learner_steps = 35
    run_state.done("evaluate", 20)
    assert run_state.due("evaluate")  # that of step 30 is still to come
    run_state.done("evaluate", 30)
    assert not run_state.due("evaluate")
