"""Environments like those of public bug reports: each either trains, or is refused in one sentence."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

from chaos.conditions.place import LONG, Place, condition
from muzero_ray.runs.metrics import MACHINE_METRICS

ODD = "tests.odd_environments"


def odd(name: str, *arguments: str) -> list[object]:
    """Options that choose the environment `name` of `tests.odd_environments`, made with `arguments` (KEY=VALUE)."""
    chosen: list[object] = ["--env.id", f"{ODD}:{name}-v0"]
    return [*chosen, "--env.kwargs", *arguments] if arguments else chosen


@condition(
    "a greedy policy that never ends a game: final evaluation",
    "it ends; says that games were cut, and names env.max_moves",
)
def never_ends(place: Place) -> None:
    options = [*odd("GoalOnly"), "--max-moves", "None", "--evaluation.final-episodes", 2]
    place.expect(place.train(*options), "trained: ", r"max.moves")


@condition(
    "an environment that never ends (serial), and SIGTERM", "the first signal stops it: a checkpoint, exit code 130"
)
def endless_and_signal(place: Place) -> None:
    options = [*odd("Endless"), "--max-moves", "None", "--evaluation.interval-steps", 20, *LONG]
    program = place.started(*place.training(*options))
    place.waits_for(place.has_checkpoint, program, "a checkpoint")
    os.kill(program.pid, signal.SIGTERM)
    place.stops(program, "checkpoint")


@condition("an environment that never ends, and `--minutes 0.05`", "the budget ends it; exit code 0")
def endless_and_budget(place: Place) -> None:
    options = [*odd("Endless"), "--max-moves", "None", "--iterations", 10**7, "--minutes", 0.05]
    place.expect(place.train(*options), "trained: ", r"max.moves")


@condition(
    "chance from NumPy's and Python's global generators", "two serial runs are equal; a stopped one can be resumed"
)
def global_random(place: Place) -> None:
    options = odd("GlobalRandom")
    first, second = (place.run.with_name(name) for name in ("first", "second"))
    for run in (first, second):
        place.expect(place.train(*options, name=run.name), "trained: ")
    place.holds(reproducible_rows(first) == reproducible_rows(second), "their metrics differ")
    place.expect(place.launch("resume", first, "--iterations", 80), "trained: ")


def reproducible_rows(run: Path) -> list[dict[str, Any]]:
    """The rows of metrics.jsonl without what depends on the clock or the machine."""
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [{name: value for name, value in row.items() if name not in MACHINE_METRICS} for row in rows]


@condition("0 and 1 in a uint8 vector, `Box(0, 1)`", "learned: 9 of 10 at least (chance 3.3)")
def small_integers(place: Place) -> None:
    expect_learned(place, "--env.kwargs", "dtype=uint8")


@condition("the same as int64", "learned: 9 of 10 at least")
def integers(place: Place) -> None:
    expect_learned(place, "--env.kwargs", "dtype=int64")


def expect_learned(place: Place, *options: object) -> None:
    """Unexpected unless 400 learner steps on the ten-step bandit are enough for a return of 9."""
    settings = (
        *("--env.id", f"{ODD}:Bandit-v0", "--iterations", 400, "--network.hidden", 32, "--network.layers", 32),
        *("--network.head-layers", 32, "--network.value.max", 10, "--network.value.bins", 41),
        *("--search.kind", "gumbel", "--search.c-scale", 0.1, "--simulations", 8),
        *("--replay.min-size", 200, "--replay.samples-per-insert", 16, "--replay.priority-alpha", 0),
        *("--learner.batch-size", 32, "--learner.td-steps", 5, "--learner.lr", 5e-3, "--learner.discount", 0.9),
        *("--learner.warmup-steps", 20, "--actors.envs-per-actor", 4, "--actors.rollout-steps", 50),
        *("--evaluation.final-episodes", 20, "--max-moves", "None"),
    )
    ended = place.expect(place.train(*settings, *options), r"trained: return_mean=")
    score = float(ended.out.partition("trained: return_mean=")[2].split()[0])
    place.holds(score >= 9.0, f"it scores {score:g}")


@condition("rewards beyond the support", "one message with the setting, the share and a value that fits; a metric")
def clamped(place: Place) -> None:
    options = ("--env.id", "tests.depot_environment:Depot-v0", "--max-moves", "None", "--network.reward.max", 2)
    place.expect(place.train(*options), r"network\.reward\.max", "trained: ")
    place.holds("clamped" in (place.run / "metrics.jsonl").read_text(), "no metric says so")


@condition("planes of (16, 8, 8)", "the run says what it sees, and a setting changes it")
def planes(place: Place) -> None:
    network = ("--network.kind", "resnet", "--network.channels", 8, "--network.downsample", 1)
    options = [*odd("Image", "c=16"), "--network.head-channels", 2]
    place.expect(place.train(*options, network=network), "8 channels of 16 x 8", "trained: ")
    first = place.train(*options, "--env.channels", "first", network=network, name="first")
    place.expect(first, "16 channels of 8 x 8", "trained: ")


@condition("an all-zero mask on a truncated last step", "exit code 0")
def truncated_mask(place: Place) -> None:
    place.expect(place.train(*odd("MaskedTrunc")), "trained: ")


@condition("keyword arguments that are a dict, a list and null", "they reach the environment; exit code 0")
def nested_arguments(place: Place) -> None:
    place.expect(place.train(*odd("Nested", "config={lanes: 3}", "desc=[SF, HG]")), "trained: ")
    place.holds("lanes: 3" in (place.run / "config.yaml").read_text(), "config.yaml does not hold the dict")


@condition("an environment that may exist once only", "exit code 0, or one sentence that says what to do")
def only_one(place: Place) -> None:
    ended = place.train(*odd("OnlyOne"), "--actors.envs-per-actor", 1)
    place.expect(ended, "trained: " if ended.code == 0 else "error: ", code=(0, 2, 3))


@condition("reset and step of the old API", "exit code 3; what was expected and what came")
def old_api(place: Place) -> None:
    place.expect(place.train(*odd("OldApi")), "expected", code=3)


@condition("an environment that prints at every step", "exit code 0")
def chatty(place: Place) -> None:
    place.expect(place.train(*odd("Chatty")), "trained: ")


@condition("observations outside their declared bounds", "exit code 0")
def lying_bounds(place: Place) -> None:
    place.expect(place.train(*odd("LyingBounds")), "trained: ")


@condition("float64 where float32 is declared", "exit code 3; both types are named")
def other_type(place: Place) -> None:
    place.expect(place.train(*odd("Drift", "wrong=true")), "float64", "float32", code=3)


@condition(
    "rewards as arrays, tensors and NumPy numbers; terminated as int", "each trains, or is refused in one sentence"
)
def reward_types(place: Place) -> None:
    for argument in ("reward_type=array1", "reward_type=np64", "reward_type=tensor", "term_type=int"):
        ended = place.train(*odd("Bandit", argument), name=argument.partition("=")[2])
        place.expect(ended, "trained: " if ended.code == 0 else "error: .*expected", code=(0, 3))


@condition("actions that start at 5", "exit code 0")
def shifted_actions(place: Place) -> None:
    place.expect(place.train(*odd("Bandit", "start=5")), "trained: ")


@condition("dictionaries, numbers as observations, several actions at once", "exit code 2; says what is supported")
def unsupported(place: Place) -> None:
    for name in ("DictObs", "DiscreteObs", "MultiDisc"):
        place.expect(place.train(*odd(name), name=name), "error: .*(observation|action)", code=2)
