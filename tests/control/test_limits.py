"""Going on with a run whose limits are spent."""

from __future__ import annotations

from typing import Any

import pytest

from muzero_ray.config.schema import Config
from muzero_ray.control.limits import describe_limits, lift_spent_limits
from muzero_ray.errors import ConfigError

NOTHING = {"learner_steps": None, "episodes": None, "minutes": None}


def going_on(configured: dict[str, Any], run_state: dict[str, float], **given: float) -> Config:
    """As `resume` does it: what is given is in the configuration already."""
    config = Config.model_validate({"run": {**configured, **given}})
    return lift_spent_limits(
        config, {"learner_steps": 50, "episodes": 20, "seconds": 600.0} | run_state, {**NOTHING, **given}
    )


def test_a_given_limit_replaces_the_one_that_is_spent_and_the_others_remain() -> None:
    config = going_on({"learner_steps": 100, "minutes": 10.0, "episodes": 30}, {}, learner_steps=200)
    assert (config.run.learner_steps, config.run.minutes, config.run.episodes) == (200, None, 30)
    assert describe_limits(config) == "200 learner steps or 30 episodes"
    config = going_on({"learner_steps": 100, "minutes": 11.0, "episodes": 20}, {}, minutes=20.0)
    assert describe_limits(config) == "100 learner steps or 20 minutes"


def test_with_nothing_given_nothing_changes() -> None:
    config = going_on({"learner_steps": 50, "minutes": 10.0, "episodes": 20}, {})
    assert describe_limits(config) == "50 learner steps or 20 episodes or 10 minutes"


@pytest.mark.parametrize(
    ("configured", "given", "option"),
    [
        ({"learner_steps": 50}, {"minutes": 20.0}, "--iterations"),  # the horizon of every schedule cannot go
        ({}, {"learner_steps": 40}, "--iterations"),
        ({}, {"minutes": 9.0}, "--minutes"),
        ({}, {"episodes": 20}, "--episodes"),
    ],
)
def test_what_would_end_at_once_is_refused(configured: dict[str, Any], given: dict[str, float], option: str) -> None:
    with pytest.raises(ConfigError, match=rf"is reached already, so there is nothing to do. Give {option} more"):
        going_on(configured, {}, **given)
