"""Settings of one kind of search or network beside those of another, in files and on the command line."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from muzero_ray.cli.commands import TrainCommand
from muzero_ray.cli.parse import parse_args
from muzero_ray.config.files import load_config, load_preset
from muzero_ray.config.schema import Config, GumbelConfig, MlpConfig, PuctConfig
from muzero_ray.errors import ConfigError
from muzero_ray.runs.run_config import load_run_config

OLD_SEARCH = {
    "kind": "puct",
    "simulations": 7,
    "pb_c_base": 100.0,
    "pb_c_init": 1.25,
    "dirichlet_alpha": 0.3,
    "noise_fraction": 0.25,
    "unvisited": "parent",
    "considered_actions": 16,
    "c_visit": 50.0,
    "c_scale": 0.3,
    "value_bounds": None,
    "temperature": [1.0, 0.5, 0.25],
    "temperature_moves": None,
}
OLD_NETWORK = {
    "kind": "mlp",
    "hidden": 32,
    "layers": [64, 64],
    "channels": 64,
    "blocks": 3,
    "downsample": 16,
    "head_layers": [64],
    "head_channels": 16,
    "projection": 256,
}
"""Sections as a run wrote them when they held the settings of all kinds."""


def train(*words: str) -> Config:
    command = parse_args(["train", *words])
    assert isinstance(command, TrainCommand)
    return command.config


def test_the_config_of_an_old_run_is_read(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text(yaml.safe_dump({"search": OLD_SEARCH, "network": OLD_NETWORK}))
    for config in (load_run_config(tmp_path), load_config(tmp_path / "config.yaml")):
        assert config.search == PuctConfig(simulations=7, pb_c_base=100.0)
        assert config.network == MlpConfig(hidden=32)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["cartpole", "--search.kind", "puct", "--search.c-scale", "0.1"],
            "--search.c-scale: is a setting of search.kind=gumbel, and search.kind is puct (got 0.1). Leave it out, or "
            "use search.kind=gumbel",
        ),
        (
            ["breakout", "--network.hidden", "8"],
            "--network.hidden: is a setting of network.kind=mlp, and network.kind is resnet (got 8). Leave it out, or "
            "use network.kind=mlp",
        ),
        (["cartpole", "--search.kind", "puct", "--search.c-scal", "1"], "Did you mean --search.c-scale?"),
    ],
)
def test_a_setting_of_another_kind_is_refused(words: list[str], message: str) -> None:
    with pytest.raises(ConfigError) as error:
        train(*words)
    assert message in str(error.value)


def test_in_a_file_too_with_its_line(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("search:\n  kind: puct\n  c_scale: 0.1\n")
    with pytest.raises(ConfigError, match=r"mine\.yaml:3: search\.c_scale: is a setting of search\.kind=gumbel"):
        load_config(file)


def test_another_kind_on_the_command_line_leaves_out_what_the_preset_says_of_its_own() -> None:
    preset = load_preset("connect4").search
    assert isinstance(preset, GumbelConfig)
    assert preset.c_scale != GumbelConfig().c_scale
    config = train("connect4", "--search.kind", "puct", "--search.pb-c-init", "2")
    expected = PuctConfig(simulations=preset.simulations, value_bounds=preset.value_bounds, pb_c_init=2.0)
    assert config.search == expected.overridden(min_value_range=preset.min_value_range)
    assert train("connect4", "--search.kind", "gumbel").search == preset


def test_help_lists_the_settings_of_all_kinds(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parse_args(["train", "cartpole", "--help"])
    shown = capsys.readouterr().out
    for option in ("--search.kind", "--search.pb-c-init", "--search.c-scale", "--network.layers", "--network.blocks"):
        assert option in shown
    assert "{puct,gumbel}" in shown
