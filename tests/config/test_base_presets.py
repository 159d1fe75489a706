"""A config file that builds on a preset: its own settings hold, and those of the preset where it is silent."""

from __future__ import annotations

from pathlib import Path

import pytest

from muzero_ray.config import files as config_file
from muzero_ray.config.files import load_config, load_preset, presets_folder
from muzero_ray.errors import ConfigError


def write(folder: Path, name: str, text: str) -> Path:
    path = folder / f"{name}.yaml"
    path.write_text(text)
    return path


@pytest.fixture
def presets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of presets of its own."""
    folder = tmp_path / "configs"
    folder.mkdir()
    monkeypatch.setattr(config_file, "presets_folder", lambda: folder)
    return folder


def test_settings_of_the_file_hold_and_the_rest_is_the_presets(tmp_path: Path) -> None:
    file = write(
        tmp_path, "mine", "base: breakout\nenv:\n  id: Qbert\n  atari:\n    image_size: 48\nlearner:\n  lr: 1e-4\n"
    )
    mine, preset = load_config(file), load_preset("breakout")
    atari = preset.env.atari.overridden(image_size=48)
    assert mine == preset.overridden(
        env=preset.env.overridden(id="Qbert", atari=atari), learner=preset.learner.overridden(lr=1e-4)
    )


def test_lists_and_keyword_arguments_are_replaced_whole(tmp_path: Path, presets: Path) -> None:
    write(presets, "below", "env:\n  kwargs: {lanes: 3, wind: 1}\nnetwork:\n  layers: [8, 9, 10]\n")
    config = load_config(write(tmp_path, "mine", "base: below\nenv:\n  kwargs: {wind: 2}\nnetwork:\n  layers: [7]\n"))
    assert config.env.kwargs == {"wind": 2}
    assert config.network.layers == (7,)


def test_a_base_may_have_one_itself(tmp_path: Path, presets: Path) -> None:
    write(presets, "low", "learner:\n  lr: 0.5\n  td_steps: 3\n")
    write(presets, "middle", "base: low\nlearner:\n  lr: 0.25\n")
    learner = load_config(write(tmp_path, "top", "base: middle\nlearner:\n  batch_size: 9\n")).learner
    assert (learner.lr, learner.td_steps, learner.batch_size) == (0.25, 3, 9)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("base: brekout\n", "1: base: there is no preset of that name (got 'brekout'). Did you mean breakout?"),
        ("run:\n  seed: 1\nbase: 3\n", "3: base: there is no preset of that name (got 3). Choose from acrobot"),
        ("base: [pong]\n", "1: base: there is no preset of that name (got ['pong']). "),
        ("base: breakout\nlearner:\n  lr: fast\n", "3: learner.lr: must be a number (got 'fast')"),
        ("base: breakout\nenv: Pong\n", "2: env: must be a section of settings (got 'Pong')"),
        ("base: breakout\nbase: pong\n", "2: base: given twice (first on line 1). Remove one"),
    ],
)
def test_mistakes_are_named_where_they_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError) as caught:
        load_config(write(tmp_path, "mine", text))
    assert str(caught.value).startswith(f"mine.yaml:{said}")


def test_a_circle_is_refused(presets: Path) -> None:
    write(presets, "one", "base: two\n")
    write(presets, "two", "base: one\n")
    with pytest.raises(ConfigError, match="two builds on one builds on two"):
        load_config(presets / "one.yaml")


def test_presets_that_build_on_another_say_only_what_differs() -> None:
    """A run's own file holds everything, and names no base."""
    text = (presets_folder() / "pong.yaml").read_text()
    assert "base: breakout" in text
    assert "replay:" not in text
    assert "base" not in config_file.dump_config(load_preset("pong")).split()
