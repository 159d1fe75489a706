"""Edited settings: the short form, and that the experiment would see what it looks for."""

from __future__ import annotations

from pathlib import Path

import pytest

import chaos.settings
from chaos.settings import settings, verdict
from muzero_ray.config.files import dump_config, load_preset


def test_edits_are_taken_or_refused(tmp_path: Path) -> None:
    (outcome,) = settings(100, tmp_path)
    assert outcome.met, outcome.notes
    assert outcome.figures["taken"] > 5
    assert outcome.figures["refused"] > 50


def test_what_is_neither_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "config.yaml"
    file.write_text(dump_config(load_preset("cartpole")))
    assert verdict(file) == "taken"
    other = dump_config(load_preset("tictactoe"))
    monkeypatch.setattr(chaos.settings, "dump_config", lambda _: other)
    assert verdict(file) == "another config comes back"
    monkeypatch.setattr(chaos.settings, "load_config", lambda _: {}["missing"])
    assert verdict(file) == "KeyError: 'missing'"
