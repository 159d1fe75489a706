"""Stands in for the package wandb."""

from __future__ import annotations

import sys
import threading
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import pytest

from tests.patience import PATIENCE


class FakeRun:
    """Stands in for a W&B run; `fail` is raised by `log`."""

    def __init__(self, folder: Path, fail: Exception | None = None, gate: threading.Event | None = None) -> None:
        self.dir = str(folder)
        self.offline = True
        self.logged: list[dict[str, Any]] = []
        self.finished = False
        self._fail = fail
        self._gate = gate

    def define_metric(self, *args: Any, **kwargs: Any) -> None:
        del args, kwargs

    def log(self, values: dict[str, Any]) -> None:
        if self._gate is not None:
            assert self._gate.wait(PATIENCE)
        if self._fail is not None:
            raise self._fail
        self.logged.append(values)

    def finish(self) -> None:
        self.finished = True


class FakeSettings:
    model_fields: ClassVar = {"silent": None}

    def __init__(self, *, silent: bool) -> None:
        assert silent


class CommError(Exception):
    pass


class UsageError(Exception):
    pass


def fake_wandb(monkeypatch: pytest.MonkeyPatch, init: Callable[..., FakeRun]) -> types.ModuleType:
    fake = types.ModuleType("wandb")
    fake.Settings = FakeSettings  # type: ignore[attr-defined]
    fake.errors = types.SimpleNamespace(CommError=CommError, UsageError=UsageError)  # type: ignore[attr-defined]
    fake.init = init  # type: ignore[attr-defined]
    fake.teardown = lambda: None  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "wandb", fake)
    monkeypatch.setenv("WANDB_DATA_DIR", "restored by monkeypatch")
    return fake
