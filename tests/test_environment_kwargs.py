"""Keyword arguments of an environment, from a file and from the command line: lists, dicts and null, too."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from muzero_ray.cli.commands import TrainCommand
from muzero_ray.cli.parse import parse_args
from muzero_ray.config import files as config_file
from muzero_ray.config.schema import EnvConfig
from muzero_ray.envs.registry import make_environment
from muzero_ray.errors import ConfigError
from tests.command_lines import refused


def given(*words: str) -> dict[str, Any]:
    command = parse_args(["train", "cartpole", "--env.kwargs", *words])
    assert isinstance(command, TrainCommand)
    return command.config.env.kwargs


@pytest.mark.parametrize(
    ("word", "value"),
    [
        ("{lanes: 3}", {"lanes": 3}),
        ('{"lanes": 3}', {"lanes": 3}),
        ('{"lanes":3}', {"lanes": 3}),
        ("[SF, HG]", ("SF", "HG")),
        ("[[1, 2.5], [no, true]]", ((1, 2.5), ("no", True))),
        ("{a: {b: [1, {c: null}]}}", {"a": {"b": (1, {"c": None})}}),
        ("[]", ()),
        ("{}", {}),
        ("null", None),
        ("None", None),
        ("'3'", "3"),
        ('"[1]"', "[1]"),
        ("1e-3", 0.001),
        ("0123", "0123"),
        ("a=b", "a=b"),
        ("a: b", "a: b"),
        ("x]", "x]"),
    ],
)
def test_a_value_is_what_yaml_says(word: str, value: Any, tmp_path: Path) -> None:
    kwargs = given(f"x={word}", "y=1")
    assert kwargs == {"x": value, "y": 1}
    assert type(kwargs["x"]) is type(value)
    # It goes into config.yaml, and comes back.
    config = config_file.load_preset("cartpole")
    config = config.model_copy(update={"env": config.env.model_copy(update={"kwargs": kwargs})})
    file = tmp_path / "config.yaml"
    file.write_text(config_file.dump_config(config))
    assert config_file.load_config(file) == config
    written = yaml.safe_load(file.read_text())
    del written["version"]
    assert written == config.to_dict()


@pytest.mark.parametrize(
    ("word", "part"),
    [
        ("{lanes:3}", "lanes:3 has no value. Write `name: value`, with a blank behind the colon"),
        ("{a: {b}}", "b has no value"),
        ("[1, 2", "'[1, 2' is not a list, a dict or quoted text at character"),
        ("[1] 2", "is not a list, a dict or quoted text"),
        ("[&a 1, *a]", "anchors (&) and aliases (*) are not supported"),
        ("[!!python/name:os.system 1]", "tags are not supported"),
        ("{1: 2}", "keys must be text"),
        ("{a: 1, a: 2}", "given twice"),
        ("[" * 2000, "nested deeper than 16 levels"),
        ("[.nan]", "holds a value of a type that is not supported"),
        (".inf", "holds a value of a type that is not supported"),
    ],
)
def test_what_can_not_be_read_is_one_line(word: str, part: str) -> None:
    message = refused("train", "cartpole", "--env.kwargs", f"x={word}")
    assert message.startswith("--env.kwargs: ")
    assert part in message
    assert "\n" not in message
    assert len(message) < 400


def test_a_file_gives_them_to_the_environment_as_they_are_written(tmp_path: Path) -> None:
    file = tmp_path / "nested.yaml"
    file.write_text(
        'env: {id: "tests.odd_environments:Nested-v0", kwargs: {config: {lanes: 3, at: [1, 2]}, desc: ["SF", "HG"]}}\n'
    )
    env = config_file.load_config(file).env
    inners: list[Any] = [make_environment(env).inner for _ in range(2)]
    first, second = (inner._env.unwrapped for inner in inners)
    assert (first.config, first.desc) == ({"lanes": 3, "at": [1, 2]}, ["SF", "HG"])
    first.config["lanes"] = 9  # each has its own
    first.config["at"].append(3)
    assert second.config == {"lanes": 3, "at": [1, 2]} == make_environment(env).inner._env.unwrapped.config  # type: ignore[attr-defined]


def test_frozen_lake_takes_its_map() -> None:
    kwargs = given("desc=[SF, HG]", "is_slippery=false")
    with pytest.raises(ConfigError, match="observation space Discrete"):  # and not its arguments
        make_environment(EnvConfig(id="FrozenLake-v1", kwargs=kwargs))


@pytest.mark.parametrize("value", [None, [1], {"a": 1}])
def test_open_spiel_has_no_nested_parameters(value: Any) -> None:
    with pytest.raises(ConfigError, match=r"env\.kwargs\.board_size=.*: parameters of OpenSpiel games are"):
        make_environment(EnvConfig(kind="openspiel", id="go", kwargs={"board_size": value}))
