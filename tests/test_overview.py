"""docs/overview.md speaks of settings that exist, with their defaults, and of a difference that is measured here."""

from __future__ import annotations

import contextlib
import io
import re
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from muzero_ray.config.kinds import fields_of
from muzero_ray.config.schema import Config

PAGE = (Path(__file__).parent.parent / "docs" / "overview.md").read_text()
SETTING = re.compile(r"`([a-z]+(?:\.[a-z_]+)+)`")


@cache
def defaults() -> dict[str, Any]:
    """Dotted name -> default, those of every kind of search and network included."""
    return dict(leaves(Config, Config()))


def leaves(model: type[BaseModel], base: BaseModel, prefix: str = "") -> list[tuple[str, Any]]:
    found: list[tuple[str, Any]] = []
    for name, field in fields_of(model).items():
        value = getattr(base, name, field.default)
        if isinstance(value, BaseModel):
            found += leaves(type(value), value, f"{prefix}{name}.")
        else:
            found.append((f"{prefix}{name}", value))
    return found


def rows() -> list[tuple[str, str]]:
    """Settings and defaults, columns 2 and 3 of the tables that have four."""
    lines = [line.removesuffix("|") for line in PAGE.splitlines() if line.startswith("| ")]
    cells = [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:]] for line in lines]
    return [(row[1], row[2]) for row in cells if len(row) >= 3 and SETTING.search(row[1])]


@pytest.mark.parametrize(("named", "shown"), rows())
def test_settings_exist_and_have_these_defaults(named: str, shown: str) -> None:
    values = [defaults()[name] for name in SETTING.findall(named)]
    words = [str(list(value)) if isinstance(value, tuple) else str(value) for value in values]
    assert ", ".join(words) == shown


def test_there_is_something_to_check() -> None:
    assert len(rows()) > 30


def test_the_schedule_changes_where_the_page_says() -> None:
    steps = Config().run.learner_steps
    search = Config().override({"search.kind": "puct"}).search
    temperatures = [search.temperature_at(step / steps) for step in range(steps)]
    changes = [step for step in range(1, steps) if temperatures[step] != temperatures[step - 1]]
    assert changes == [50_000, 75_000]
    assert all(f"{step:,}" in PAGE for step in changes)


def test_the_difference_to_pil_is_what_the_code_prints() -> None:
    pytest.importorskip("PIL")
    code = PAGE.partition("```python\n")[2].partition("```")[0]
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        exec(compile(code, "docs/overview.md", "exec"), {})
    (said,) = re.findall(r"the two differ by ([\d.]+) of 255", PAGE)
    assert float(printed.getvalue()) == pytest.approx(float(said), abs=0.05)
