"""What a protocol counts, against what play really depends on: the search itself, asked with each setting changed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from muzero_ray.config.files import dump_config
from muzero_ray.config.schema import Config, GumbelConfig, PuctConfig
from muzero_ray.config.validation import dotted, leaf_paths
from muzero_ray.control.probe import probe
from muzero_ray.errors import ConfigError
from muzero_ray.evaluation.evaluator import Evaluator
from muzero_ray.evaluation.protocol import (
    ADDED_LATER,
    UNKNOWN,
    completed,
    evaluation_protocol,
    evaluation_search,
    protocol_digest,
)
from muzero_ray.runs.scores import RunScore, compare, read_score, unknown_precision
from muzero_ray.search.policies import make_search
from muzero_ray.types import EnvSpec, SearchResult
from tests.search.worlds import random_table
from tests.small_runs import small_config

SPEC = EnvSpec("Game-v0", (4,), "float32", 6, max_moves=500)
ISSUE = ("c_scale", "value_bounds", "considered_actions", "min_value_range")

OTHER: dict[str, Any] = {
    "kind": None,  # has a test of its own
    "simulations": 23,
    "pb_c_base": 2.0,
    "pb_c_init": 5.0,
    "dirichlet_alpha": 3.0,
    "noise_fraction": 0.9,
    "unvisited": "zero",
    "considered_actions": 2,
    "c_visit": 1.0,
    "c_scale": 0.03,
    "value_bounds": (-9.0, 9.0),
    "min_value_range": 20.0,
    "temperature": (2.0, 2.0, 2.0),
    "temperature_moves": 1,
}
"""Another value of each setting of the search."""


def digest(config: Config, **more: Any) -> str:
    return evaluation_protocol(config, SPEC, **more).digest


def changed(config: Config, path: tuple[str, ...], value: Any) -> Config:
    """`config` with one setting changed."""
    data = config.model_dump()
    section = data
    for name in path[:-1]:
        section = section[name]
    if path == ("search", "kind"):
        section.clear()  # another kind has other settings
    section[path[-1]] = value
    return Config.model_validate(data)


def evaluate(config: Config) -> SearchResult:
    """What the search of evaluations answers at 300 roots of a random model; only its settings are `config`'s."""
    search = make_search(evaluation_search(config), discount=config.learner.discount, num_players=1)
    table = random_table(0, states=300, actions=6)
    roots = table.initial(np.arange(300))
    legal = np.ones(roots.policy_logits.shape, np.bool_)
    cold = np.zeros(300, np.float32)
    return search(roots, table, legal, np.random.default_rng(0), explore=False, temperature=cold)


def acts_alike(one: Config, other: Config) -> bool:
    return np.array_equal(evaluate(one).action, evaluate(other).action)


def test_every_setting_of_the_search_has_another_value_here() -> None:
    """A new one is to be added: the tests below then tell whether the protocol has to count it."""
    assert OTHER.keys() == PuctConfig.model_fields.keys() | GumbelConfig.model_fields.keys()


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        (one.model_fields["kind"].default, name)
        for one in (GumbelConfig, PuctConfig)
        for name in one.model_fields
        if name != "kind"
    ],
)
def test_a_setting_counts_exactly_if_the_search_acts_otherwise(kind: str, name: str) -> None:
    config = Config.model_validate({"search": {"kind": kind, "simulations": 16}})
    other = changed(config, ("search", name), OTHER[name])
    assert (digest(other) == digest(config)) == acts_alike(other, config)


@pytest.mark.parametrize("name", ISSUE)
def test_each_of_the_four_settings_counts(name: str) -> None:
    config = Config()
    assert digest(changed(config, ("search", name), OTHER[name])) != digest(config)


def test_the_kind_of_search_and_its_discount_count() -> None:
    config = Config()
    for other in (changed(config, ("search", "kind"), "puct"), changed(config, ("learner", "discount"), 0.5)):
        assert not acts_alike(other, config)
        assert digest(other) != digest(config)


@pytest.mark.parametrize("name", ["c_scale", "simulations"])
def test_settings_of_the_evaluation_stand_in_for_those_of_the_search(name: str) -> None:
    config = Config()
    evaluation, search = (
        changed(config, ("evaluation", name), OTHER[name]),
        changed(config, ("search", name), OTHER[name]),
    )
    assert digest(evaluation) == digest(search) != digest(config)
    assert acts_alike(evaluation, search)
    both = changed(evaluation, ("search", name), 7)
    assert digest(both) == digest(evaluation)
    assert acts_alike(both, evaluation)


def test_where_a_search_does_not_read_it_the_c_scale_of_evaluations_does_not_count() -> None:
    config = Config.model_validate({"search": {"kind": "puct"}})
    assert digest(changed(config, ("evaluation", "c_scale"), 3.0)) == digest(config)


COUNT: dict[str, Any] = {
    "env.kind": "openspiel",
    "env.id": "Acrobot-v1",
    "env.kwargs": {"x": 1},
    "env.frame_stack": 2,
    "env.max_moves": 9,
    "env.atari.image_size": 64,
    "env.atari.grayscale": False,
    "env.atari.frame_skip": 3,
    "env.atari.sticky_actions": 0.0,
    "env.atari.noop_max": 1,
    "env.atari.fire_to_start": True,
    "evaluation.simulations": 3,
    "evaluation.c_scale": 3.0,
    "evaluation.opponent": "mcts:5",
    "learner.discount": 0.9,
}
"""Settings outside of `search` that change what an evaluated agent does, or in which game, with another value each."""

DO_NOT_COUNT = {
    "env.channels": "how the network reads a frame: a part of the agent, like the network's settings",
    "env.scaling": "the same",
    "env.instances": "how many games are played side by side",
    "env.opening_moves": "self-play only",
    "env.atari.terminal_on_life_loss": "training targets only",
    "evaluation.interval_steps": "when",
    "evaluation.episodes": "how many games: the score lists its returns",
    "evaluation.final_episodes": "the same",
    "evaluation.video": "an evaluation that is filmed plays the same games",
    "actors.engine": "the same function up to rounding",
    "actors.precision": "counts as what the engine made of it, see below",
    "actors": "processes and threads",
    "learner": "how the weights came about",
    "network": "the agent itself",
    "replay": "training only",
    "reanalyze": "training only",
    "run": "budget, seed and output",
}
"""Settings, or whole sections, that do not, and why."""


@pytest.mark.parametrize("path", [path for path in leaf_paths(Config) if path[0] != "search"], ids=dotted)
def test_every_other_setting_counts_or_has_a_reason_why_not(path: tuple[str, ...]) -> None:
    name = dotted(path)
    if name not in COUNT:
        section = path[0]
        assert name in DO_NOT_COUNT or section in DO_NOT_COUNT, f"{name} is new: does it change what the agent does?"
        return
    assert name not in DO_NOT_COUNT
    atari = {"env": {"kind": "atari", "id": "Breakout"}, "network": {"kind": "resnet"}}
    config = Config.model_validate(atari if name.startswith("env.atari") else {})
    spec = EnvSpec("Game-v0", (4,), "float32", 6, 2 if name == "evaluation.opponent" else 1, max_moves=500)
    one, other = (evaluation_protocol(made, spec) for made in (config, changed(config, path, COUNT[name])))
    assert one.digest != other.digest


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("env.channels", "last"),
        ("env.scaling", "bytes"),
        ("env.instances", 1_000),
        ("evaluation.interval_steps", 3),
        ("evaluation.episodes", 3),
        ("evaluation.final_episodes", 3),
        ("evaluation.video", False),
        ("actors.engine", "torch"),
        ("actors.threads", 2),
        ("learner.lr", 0.5),
        ("run.seed", 7),
    ],
)
def test_what_does_not_count_leaves_the_digest(name: str, value: Any) -> None:
    config = Config()
    assert digest(changed(config, tuple(name.split(".")), value)) == digest(config)


def test_an_evaluator_states_the_precision_of_its_engine() -> None:
    config = small_config()
    float32 = Evaluator(config, probe(config)).protocol
    torch = config.actors.overridden(engine="torch", precision="bf16")
    bf16 = Evaluator(config.overridden(actors=torch), probe(config)).protocol
    assert (float32.precision, bf16.precision) == ("float32", "bf16")
    assert float32.digest != bf16.digest
    assert "c_scale 1, value_bounds none, min_value_range 0, discount 0.997, float32)" in float32.describe()


def test_the_digest_covers_what_is_written() -> None:
    protocol = evaluation_protocol(Config(), SPEC, precision="float32")
    written = json.loads(json.dumps(protocol.as_dict()))
    assert protocol_digest(written) == protocol.digest
    assert completed(written, Config()) == written


# Scores in files: new ones, and old ones that do not name all settings.


def write_run(folder: Path, config: Config, *, old: bool = False, precision: str = "float32", **said: Any) -> RunScore:
    """A run with a final score. old: as it was written before settings of the search were part of the protocol."""
    folder.mkdir()
    (folder / "config.yaml").write_text(dump_config(config))
    protocol = evaluation_protocol(config, SPEC, precision=precision).as_dict()
    if old:
        protocol = {name: value for name, value in protocol.items() if name not in ADDED_LATER}
    protocol = {**protocol, "digest": protocol_digest(protocol), **said}
    entry = {"learner_step": 9, "env_steps": 90, "returns": [1.0], "return_mean": 1.0, "protocol": protocol}
    (folder / "scores.jsonl").write_text(
        "".join(json.dumps({**entry, "kind": kind}) + "\n" for kind in ("final", "random"))
    )
    return read_score(folder)


@pytest.mark.parametrize("old", [(False, False), (True, False), (False, True), (True, True)])
@pytest.mark.parametrize("name", [*ISSUE, "c_visit"])
def test_a_report_pools_equal_settings_only(name: str, old: tuple[bool, bool], tmp_path: Path) -> None:
    """Whether or not the scores name them: what an old one does not say, its run's config.yaml does."""
    other = changed(Config(), ("search", name), OTHER[name])
    one = write_run(tmp_path / "one", Config(), old=old[0])
    same = write_run(tmp_path / "same", Config(), old=old[1])
    differs = write_run(tmp_path / "differs", other, old=old[1])
    assert [found.runs for found in compare([one, same])] == [2]
    with pytest.raises(ConfigError, match=rf"search_settings\.{name} is .* in one and .* in the other"):
        compare([one, differs])


def test_old_scores_of_a_config_that_lacks_a_setting_were_made_with_its_default(tmp_path: Path) -> None:
    one, same = (write_run(tmp_path / name, Config(), old=True) for name in ("one", "same"))
    (tmp_path / "same" / "config.yaml").write_text("{}")
    same = read_score(tmp_path / "same")
    assert compare([one, same])[0].runs == 2


def test_a_score_that_contradicts_its_config_says_only_what_it_says(tmp_path: Path) -> None:
    """Somebody changed config.yaml. Such scores stay alone: what is unknown of two may differ."""
    doubtful = [write_run(tmp_path / name, Config(), old=True, simulations=99) for name in ("a", "b")]
    assert set(doubtful[0].protocol["search_settings"].values()) == {UNKNOWN}
    assert compare(doubtful[:1])[0].runs == 1
    with pytest.raises(ConfigError, match="is unknown in one and unknown in the other"):
        compare(doubtful)
    known = write_run(tmp_path / "c", changed(Config(), ("search", "simulations"), 99), old=True)
    with pytest.raises(ConfigError, match="is unknown in one and"):
        compare([doubtful[0], known])


def test_a_precision_that_was_up_to_the_machine_is_no_difference_but_said(tmp_path: Path) -> None:
    config = Config.model_validate({"network": {"kind": "resnet"}, "actors": {"precision": "auto"}})
    old = write_run(tmp_path / "old", config, old=True)
    float32 = write_run(tmp_path / "float32", config)
    bf16 = write_run(tmp_path / "bf16", config, precision="bf16")
    assert old.protocol["precision"] == UNKNOWN
    for other in (float32, bf16):
        assert compare([old, other])[0].runs == 2
        assert unknown_precision([old, other]) == [old]
    with pytest.raises(ConfigError, match="precision is float32 in one and bf16 in the other"):
        compare([old, float32, bf16])
    assert unknown_precision([old]) == unknown_precision([float32]) == []
    assert unknown_precision([old, old]) == [old, old]


@pytest.mark.parametrize(
    ("config", "precision"),
    [
        ({"actors": {"precision": "auto"}}, "float32"),
        ({"actors": {"precision": "bf16"}}, "float32"),
        ({"actors": {"precision": "auto", "engine": "torch"}}, UNKNOWN),
        ({"network": {"kind": "resnet"}}, "float32"),
        ({"network": {"kind": "resnet"}, "actors": {"precision": "bf16"}}, UNKNOWN),
    ],
)
def test_the_precision_of_an_old_score_is_known_where_no_machine_can_change_it(
    config: dict[str, Any], precision: str, tmp_path: Path
) -> None:
    assert write_run(tmp_path / "run", Config.model_validate(config), old=True).protocol["precision"] == precision
