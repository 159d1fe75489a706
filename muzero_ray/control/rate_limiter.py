"""Holds the replay ratio, so that learning per env step does not depend on how fast the machine is."""

from __future__ import annotations

from muzero_ray.config.schema import Config

AHEAD = 4
"""One is being played, two are counted as trained on only once the learner's call is over, and one is to spare. With
less, actors and learner wait for each other by turns: with 1, 7 % of two cores were idle, with 4 it is 2 %."""


class RateLimiter:
    """Budgets for self-play and learner that keep `sampled` near `samples_per_insert * (inserted - min_size)`.

    With `owed = samples_per_insert * (inserted - min_size) - sampled`, the learner may run while `owed` pays for a
    whole batch, self-play while `owed` is below `samples_per_insert * slack`. Callers that keep to the budgets stay
    within `0 <= owed <= samples_per_insert * slack` once the warm-up is over; an insert that overshoots its budget
    (games end where they end) is made good by the next budgets.

    Never both 0: no batch is payable only if `owed < batch_size`, and `slack >= batch_size / samples_per_insert + 1`
    then leaves room for one insert. A smaller `slack` is therefore raised to that.

    samples_per_insert: how often each transition is trained on. min_size: transitions before the first learner step.
    batch_size: positions per learner step. slack: transitions self-play may run ahead of the learner.
    """

    def __init__(self, samples_per_insert: float, min_size: int, batch_size: int, slack: int) -> None:
        if samples_per_insert <= 0 or min_size < 0 or batch_size < 1:
            raise ValueError(f"{samples_per_insert=} and {batch_size=} must be positive, {min_size=} not negative")
        self._ratio = samples_per_insert
        self._min_size = min_size
        self._batch_size = batch_size
        self._slack = max(float(slack), batch_size / samples_per_insert + 1.0)
        self.inserted = 0
        """Transitions inserted so far."""
        self.sampled = 0
        """Positions trained on so far (learner steps times batch size)."""

    def _owed(self) -> float:
        return self._ratio * (self.inserted - self._min_size) - self.sampled

    def insert_budget(self) -> int:
        """Transitions that may be inserted now."""
        return max(0, int(self._slack - self._owed() / self._ratio))

    def sample_budget(self) -> int:
        """Learner steps that may be run now."""
        return max(0, int(self._owed() // self._batch_size))

    def inserts(self, transitions: int) -> None:
        """Count `transitions` as inserted."""
        self.inserted += transitions

    def samples(self, steps: int) -> None:
        """Count `steps` learner steps as run."""
        self.sampled += steps * self._batch_size

    def state(self) -> dict[str, int]:
        """JSON-able counters."""
        return {"inserted": self.inserted, "sampled": self.sampled}

    def load_state(self, state: dict[str, int]) -> None:
        """Go on from `state()`."""
        self.inserted, self.sampled = int(state["inserted"]), int(state["sampled"])


def make_rate_limiter(cfg: Config) -> RateLimiter:
    """The limiter of a run: every actor may be `AHEAD` rollouts ahead of the learner."""
    return RateLimiter(
        samples_per_insert=cfg.replay.samples_per_insert,
        min_size=cfg.replay.min_size,
        batch_size=cfg.learner.batch_size,
        slack=AHEAD * cfg.actors.count * cfg.actors.rollout_steps,
    )
