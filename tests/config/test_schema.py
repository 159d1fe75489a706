"""Presets, and round trips of any config."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from muzero_ray.config import files as config_file
from muzero_ray.config.kinds import fields_of
from muzero_ray.config.schema import Config
from muzero_ray.config.validation import leaf_paths
from muzero_ray.errors import ConfigError

PRESETS = [
    *("acrobot", "atari", "atari_gpu", "breakout", "cartpole", "connect4", "lunarlander", "minatar-breakout"),
    *("minatar-space_invaders", "pong", "tictactoe"),
]


@pytest.mark.parametrize("name", PRESETS)
def test_presets_round_trip_and_say_what_they_need(name: str, tmp_path: Path) -> None:
    config = config_file.load_preset(name)
    file = tmp_path / "config.yaml"
    file.write_text(config_file.dump_config(config))
    assert config_file.load_config(file) == config
    preset = next(preset for preset in config_file.list_presets() if preset.name == name)
    assert preset.note("command").startswith(f"python launch.py train {name}")
    assert all(preset.note(key) for key in ("hardware", "expected time", "expected score"))


def test_presets_are_all_listed() -> None:
    assert [preset.name for preset in config_file.list_presets()] == PRESETS
    with pytest.raises(ConfigError, match="Did you mean cartpole"):
        config_file.load_preset("cartpol")
    with pytest.raises(ConfigError, match="Choose from acrobot, atari, atari_gpu, breakout"):
        config_file.load_preset("../configs/breakout")


def test_the_atari_preset_has_the_overview_numbers() -> None:
    config = config_file.load_preset("atari")
    assert (config.env.atari.image_size, config.env.atari.grayscale, config.env.frame_stack) == (96, False, 1)
    assert (config.network.channels, config.network.downsample, config.env.max_moves) == (256, 4, 1000)
    for support in (config.network.value, config.network.reward):
        assert (support.max, support.bins, support.transform) == (300.0, 601, True)
    learner = config.learner
    assert (learner.batch_size, learner.lr, learner.unroll_steps, learner.td_steps) == (128, 1e-3, 5, 10)
    assert (learner.discount, learner.device, config.learner.gpus) == (0.997, "auto", 1.0)
    assert (config.search.kind, config.search.simulations) == ("puct", 50)


def test_the_atari_preset_plays_with_what_is_cheapest_on_cpus() -> None:
    """Measured: half the CPU time of float32 in bf16; no less with more rows in a batch."""
    config = config_file.load_preset("atari")
    assert (config.actors.precision, config.actors.threads, config.actors.envs_per_actor) == ("auto", 1, 4)
    # Reanalyze is one process, and a position searched again costs as much as a move of one of the actors.
    assert config.reanalyze.ratio <= 1 / config.actors.count


@pytest.mark.parametrize("name", PRESETS)
def test_a_header_points_to_scores_that_are_there_or_says_that_there_are_none(name: str) -> None:
    (preset,) = [preset for preset in config_file.list_presets() if preset.name == name]
    score, time = preset.note("expected score"), preset.note("expected time")
    results = (Path(config_file.__file__).parents[2] / "docs" / "results.md").read_text()
    if score == "not measured":
        assert "results.md" not in preset.header
        assert "not measured" in time or "by calculation" in time
    else:
        assert "see docs/results.md" in preset.header
        assert re.search(rf"train {name}[ `]", results)
        assert re.search(r"\d", score.replace("results.md", ""))


def test_pong_is_breakout_with_another_game_and_budget_and_finer_learning() -> None:
    breakout, pong = config_file.load_preset("breakout").to_dict(), config_file.load_preset("pong").to_dict()
    assert (pong["env"].pop("id"), breakout["env"].pop("id")) == ("Pong", "Breakout")
    assert pong["env"].pop("max_moves") * 4 == 108_000  # frames: games of Pong are longer
    breakout["env"].pop("max_moves")
    assert (pong["learner"].pop("unroll_steps"), breakout["learner"].pop("unroll_steps")) == (5, 3)
    assert (pong["search"].pop("min_value_range"), breakout["search"].pop("min_value_range")) == (0.05, 0.5)
    for support in ("value", "reward"):
        assert (pong["network"][support].pop("bins"), breakout["network"][support].pop("bins")) == (301, 61)
    for section in ("env", "network", "search", "replay", "learner", "reanalyze", "actors"):
        assert pong[section] == breakout[section], section


words = st.text(st.characters(exclude_categories=["Cs"]), max_size=20) | st.sampled_from(
    [
        "no",
        "1e-3",
        "0123",
        "12:30",
        "null",
        "",
        "~",
        "<<",
        "=",
        "- a",
        "a: b",
        "#",
        "1_0",
        "2024-01-01",
        "&a",
        "!b",
        "a\n b\n",
    ]
)
positive = st.floats(1e-300, 1e300)
fractions = st.floats(0.0, 1.0)


@st.composite
def configs(draw: st.DrawFn) -> dict[str, Any]:
    """Settings of every type: text, numbers, lists, unions, mappings and none."""
    return {
        "run": {
            "name": draw(st.none() | words),
            "runs_dir": draw(words),
            "seed": draw(st.integers(0, 2**64 - 1)),
            "minutes": draw(st.none() | st.floats(1e-300, 1e9)),
            "serial": draw(st.booleans()),
        },
        "env": {
            "id": draw(words.filter(bool)),
            "kwargs": draw(
                st.dictionaries(
                    words, words | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
                )
            ),
        },
        "network": {"layers": tuple(draw(st.lists(st.integers(1, 65_536)))), "value": {"max": draw(positive)}},
        "search": {
            "kind": "puct",
            "value_bounds": draw(st.none() | st.just((-1.0, 1e-7))),
            "temperature": tuple(draw(st.tuples(fractions, fractions, positive))),
        },
        "learner": {"lr": draw(positive), "momentum": draw(fractions)},
    }


@settings(max_examples=150, deadline=None)
@given(configs())
def test_any_config_survives_dump_and_load(tmp_path_factory: pytest.TempPathFactory, data: dict[str, Any]) -> None:
    config = Config.model_validate(data)
    text = config_file.dump_config(config)
    file = tmp_path_factory.getbasetemp() / "any.yaml"
    file.write_text(text, encoding="utf-8", newline="")
    assert config_file.load_config(file) == config
    # Other YAML readers, which follow the older rules, read the same.
    assert yaml.safe_load(text) == {"version": 2, **config.to_dict()}


def test_every_setting_is_dumped() -> None:
    """By one kind of search and network or by the other."""
    found = set()
    for data in ({}, {"search": {"kind": "puct"}, "network": {"kind": "resnet"}}):
        dumped = yaml.safe_load(config_file.dump_config(Config.model_validate(data)))
        found |= {path for path in leaf_paths(Config) if _has(dumped, path)}
    assert found == set(leaf_paths(Config))


def _has(value: Any, path: tuple[str, ...]) -> bool:
    for key in path:
        if key not in value:
            return False
        value = value[key]
    return True


def test_every_setting_says_what_it_is() -> None:
    for path in leaf_paths(Config):
        section: Any = Config
        for key in path[:-1]:
            section = fields_of(section)[key].annotation
        assert fields_of(section)[path[-1]].description, path


def test_override_sets_dotted_names_and_leaves_the_rest() -> None:
    base = Config.model_validate({"env": {"kwargs": {"lanes": 2, "wind": True}}})
    changed = base.override(
        {"learner.lr": 3e-3, "network.layers": [64, 32], "run.learner_steps": 1e3, "env.kwargs.lanes": 3}
    )
    assert changed.learner.lr == 3e-3
    assert changed.network.layers == (64, 32)
    assert changed.run.learner_steps == 1000
    assert changed.env.kwargs == {"lanes": 3, "wind": True}
    assert base.env.kwargs == {"lanes": 2, "wind": True}
    assert base.override({"run.training_steps": 7}).run.learner_steps == 7  # its name in older files
    back = {"learner.lr": base.learner.lr, "network.layers": base.network.layers, "env.kwargs.lanes": 2}
    assert changed.override({**back, "run.learner_steps": base.run.learner_steps}) == base


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"learner.lrr": 1e-3}, r"learner\.lrr: unknown key.* Did you mean learner\.lr\?"),
        ({"lr": 1e-3}, r"lr: unknown key.* Did you mean learner\.lr\?"),
        ({"lerner.lr": 1e-3}, r"lerner\.lr: unknown setting\. Did you mean learner\.lr\?"),
        ({"learner.lr.final": 1e-3}, r"learner\.lr\.final: unknown setting"),
        ({"learner": {"lr": 1e-3}}, r"learner: is a section\. Name one of its settings, such as learner\.\w+"),
        ({"learner.lr": "fast"}, r"learner\.lr: must be a number \(got 'fast'\)"),
        ({"replay.min_size": 2_000_000_000}, r"replay\.min_size=2000000000"),
        ({"run.plugins": "my_pkg"}, r"run\.plugins: must be a list \(got 'my_pkg'\)"),
        ({"run.plugins": 5}, r"run\.plugins: must be a list \(got 5\)"),
        ({"run.plugins": [5]}, r"run\.plugins\[0\]: must be text \(got 5\)"),
        (
            {"run.training_steps": 7, "run.learner_steps": 8},
            r"^run\.training_steps and run\.learner_steps are the same setting, and both are given\. Remove one$",
        ),
        (
            {"learner.cpus": 2, "actors.learner_cpus": 2},
            r"^actors\.learner_cpus and learner\.cpus are the same setting",
        ),
    ],
)
def test_override_names_what_cannot_be_used(settings: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Config().override(settings)


def test_override_of_a_kind_leaves_out_what_only_the_other_has() -> None:
    puct = Config().override({"search.pb_c_base": 100.0, "search.kind": "puct", "search.simulations": 9})
    assert (puct.search.kind, puct.search.simulations) == ("puct", 9)
    assert puct.override({"search.kind": "gumbel"}).search == Config().override({"search.simulations": 9}).search
    with pytest.raises(ConfigError, match=r"search\.pb_c_base: "):
        Config().override({"search.pb_c_base": 100.0})
