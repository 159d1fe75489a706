import json

import hypothesis.strategies as st
from hypothesis import given, settings

from muzero_ray.config.schema import ActorsConfig, Config, LearnerConfig, ReplayConfig
from muzero_ray.control.rate_limiter import RateLimiter, make_rate_limiter

LIMITS = {
    "ratio": st.floats(0.01, 300.0),
    "min_size": st.integers(0, 5000),
    "batch_size": st.integers(1, 1024),
    "slack": st.integers(0, 5000),
}


@settings(max_examples=150, deadline=None)
@given(**LIMITS, choices=st.lists(st.tuples(st.booleans(), st.floats(0, 1), st.integers(0, 400)), max_size=60))
def test_never_both_waiting_and_ratio_bounded(ratio, min_size, batch_size, slack, choices) -> None:
    limiter = RateLimiter(ratio, min_size, batch_size, slack)
    room = max(slack, batch_size / ratio + 1)
    excess = 0
    for insert_first, part, overshoot in choices:
        inserts, samples = limiter.insert_budget(), limiter.sample_budget()
        assert inserts > 0 or samples > 0
        if (insert_first and inserts) or not samples:
            # Games end where they end: an insert may overshoot its budget.
            limiter.inserts(max(1, int(part * inserts)) + overshoot)
            excess = max(excess, overshoot)
        else:
            limiter.samples(max(1, int(part * samples)))
        owed = ratio * (limiter.inserted - min_size) - limiter.sampled
        assert owed <= ratio * (room + excess) * (1 + 1e-9)
        assert owed >= -1e-6 or limiter.sampled == 0


@settings(max_examples=40, deadline=None)
@given(**LIMITS, eager=st.booleans())
def test_long_runs_reach_the_ratio(ratio, min_size, batch_size, slack, eager) -> None:
    limiter = RateLimiter(ratio, min_size, batch_size, slack)
    for _ in range(200):
        if (limiter.insert_budget() and eager) or not limiter.sample_budget():
            limiter.inserts(limiter.insert_budget())
        else:
            limiter.samples(limiter.sample_budget())
    assert limiter.sampled > 0
    trained = limiter.sampled / ratio
    fresh = limiter.inserted - min_size
    assert trained <= fresh * (1 + 1e-9) + 1e-6
    assert fresh - trained <= max(slack, batch_size / ratio + 1) + 1


def test_nothing_is_trained_before_min_size() -> None:
    limiter = RateLimiter(4.0, 100, 8, 50)
    assert (limiter.insert_budget(), limiter.sample_budget()) == (150, 0)
    limiter.inserts(100)
    assert (limiter.insert_budget(), limiter.sample_budget()) == (50, 0)
    limiter.inserts(5)  # 20 positions owed: two batches of 8
    assert (limiter.insert_budget(), limiter.sample_budget()) == (45, 2)
    limiter.samples(2)
    assert (limiter.sampled, limiter.insert_budget(), limiter.sample_budget()) == (16, 49, 0)


def test_state_goes_through_json() -> None:
    limiter, other = RateLimiter(4.0, 10, 8, 50), RateLimiter(4.0, 10, 8, 50)
    limiter.inserts(33)
    limiter.samples(2)
    other.load_state(json.loads(json.dumps(limiter.state())))
    assert (other.inserted, other.sampled) == (33, 16)
    assert other.insert_budget() == limiter.insert_budget()


def test_the_builder_lets_every_actor_be_four_rollouts_ahead() -> None:
    cfg = Config(
        replay=ReplayConfig(min_size=500, samples_per_insert=2.0),
        learner=LearnerConfig(batch_size=32),
        actors=ActorsConfig(count=3, rollout_steps=100),
    )
    assert make_rate_limiter(cfg).insert_budget() == 500 + 4 * 300
