"""The parts that run the real program on Ray."""

from __future__ import annotations

import psutil
import pytest

from benchmarks.coordination import coordinate
from benchmarks.system import USEFUL, whole_system
from tests.benchmarks.rows import SMALL, check
from tests.small_runs import small_config

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("ray_cluster")]


def test_the_whole_system_is_watched_by_kind_of_process() -> None:
    config = small_config(
        run={"serial": False, "learner_steps": 1_000_000, "log_steps": 50, "checkpoint_steps": 1_000_000},
        actors={"count": 1, "envs_per_actor": 4, "rollout_steps": 40, "num_cpus": 0.2},
        learner={"cpus": 0.2},
        evaluation={"interval_steps": 1_000_000, "video": False},
    )
    zero = ("system/cpu/", "system/learner-", "system/env-steps")
    rows = check(list(whole_system(config, SMALL)), may_be_zero=zero)
    kinds = {name.removeprefix("system/cpu/") for name in rows if name.startswith("system/cpu/")}
    assert {"self_play", "learner", "evaluator", "replay", "driver", "ray"} <= kinds
    useful = sum(rows[f"system/cpu/{kind}"].figure for kind in kinds & set(USEFUL))
    assert rows["system/busy"].figure == pytest.approx(useful)
    assert rows["system/busy"].ratio == pytest.approx(useful / psutil.cpu_count())
    waits = rows["system/learner-wait"].ratio
    assert waits is not None
    assert 0 <= waits < 1


def test_sleeping_actors_are_driven_by_the_real_program() -> None:
    rows = check(list(coordinate(SMALL)), may_be_zero=("coordination",))
    alone = rows["coordination-first/1/self-play"].ratio
    assert alone is not None
    assert alone < 1.01  # nobody is faster than what it sleeps
    learner = rows["coordination-first/1/learner"].ratio
    assert learner is not None
    assert learner < 1.01
    assert rows["coordination/2/self-play"].baseline == "2 x that of 1"
    assert rows["coordination/replay-intake"].baseline == "what those 2 play"
    assert rows["coordination/replay-intake-breakout"].unit == "actors"
