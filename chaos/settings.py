"""Presets with something changed at random: a file that was edited in a hurry, or by a program that was wrong."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import yaml

from chaos.report import Outcome
from muzero_ray.config.files import dump_config, list_presets, load_config, load_preset
from muzero_ray.errors import ConfigError

VALUES: tuple[Any, ...] = (
    *(0, 1, -1, 2**31, 2**63, 10**400, 0.5, -0.0, 1e-320, 1e308, float("nan"), float("inf"), float("-inf")),
    *(True, False, None, "", " ", "no", "1e-3", "0123", "12:30", "2026-11-25", "a: b", "\x00", "\u2028", "x" * 10_000),
    *([], [1], [1, "a"], [[1]], {}, {"a": 1}, {"id": {"id": {}}}),
)
"""Right ones, wrong ones, and those that YAML takes for something else."""

PIECES = (
    *("\t", "  ", "&a ", "*a", "!!python/object:os.system ", "- ", "? ", "|"),
    *(">", "{", "]", "'", '"', "\r", "\ufeff", "%"),
)
"""What means something to YAML."""


def _leaves(tree: dict[str, Any]) -> list[tuple[dict[str, Any], str]]:
    """Every place in `tree` as (mapping, key)."""
    found = [(tree, key) for key in tree]
    for value in tree.values():
        found += _leaves(value) if isinstance(value, dict) else []
    return found


def _another_value(tree: dict[str, Any], rng: random.Random) -> str:
    mapping, key = rng.choice(_leaves(tree))
    mapping[key] = rng.choice(VALUES)
    return yaml.safe_dump(tree)


def _another_key(tree: dict[str, Any], rng: random.Random) -> str:
    mapping, key = rng.choice(_leaves(tree))
    at = rng.randrange(len(key))
    mapping[key[:at] + rng.choice("_axS1.-") + key[at + rng.randrange(2) :]] = mapping.pop(key)
    return yaml.safe_dump(tree)


def _key_gone(tree: dict[str, Any], rng: random.Random) -> str:
    mapping, key = rng.choice(_leaves(tree))
    del mapping[key]
    return yaml.safe_dump(tree)


def _value_of_another(tree: dict[str, Any], rng: random.Random) -> str:
    (to, key), (source, other) = rng.choices(_leaves(tree), k=2)
    to[key] = str(source[other]) if isinstance(source[other], dict) else source[other]
    return yaml.safe_dump(tree)


def _lines(tree: dict[str, Any], rng: random.Random) -> str:
    """A line twice, missing, or in another's place."""
    lines = yaml.safe_dump(tree).splitlines()
    at, other = rng.randrange(len(lines)), rng.randrange(len(lines))
    line = lines[at] if rng.random() < 0.5 else lines.pop(at)
    lines.insert(other, line)
    return "\n".join(lines)


def _text(tree: dict[str, Any], rng: random.Random) -> str:
    """Some characters put in, or cut out, anywhere."""
    text = yaml.safe_dump(tree)
    at = rng.randrange(len(text))
    return text[:at] + rng.choice((*PIECES, "")) + text[at + rng.choice((0, 1, 5, 10**6)) :]


EDITS: tuple[Callable[[dict[str, Any], random.Random], str], ...] = (
    _another_value,
    _another_key,
    _key_gone,
    _value_of_another,
    _lines,
    _text,
)


def edited(number: int) -> str:
    """A preset's text after edit `number`, and sometimes a second one."""
    rng = random.Random(number)
    tree = load_preset(rng.choice(list_presets()).name).to_dict()
    if rng.random() < 0.3:
        mapping, key = rng.choice(_leaves(tree))
        mapping[key] = rng.choice(VALUES)
    return rng.choice(EDITS)(tree, rng)


def verdict(file: Path) -> str:
    """`refused` with a ConfigError, `taken` with an equal round trip, or what went wrong."""
    try:
        config = load_config(file)
    except ConfigError:
        return "refused"
    except Exception as error:  # whatever else comes is what is looked for
        return f"{type(error).__name__}: {error}"
    again = file.with_name("again.yaml")
    again.write_text(dump_config(config), encoding="utf-8", newline="")
    return "taken" if load_config(again) == config else "another config comes back"


def settings(tries: int, folder: Path) -> Iterator[Outcome]:
    """Files that `train --config` is given."""
    file, verdicts = folder / "edited.yaml", list[str]()
    for number in range(tries):
        file.write_text(edited(number), encoding="utf-8", newline="")
        verdicts.append(verdict(file))
    notes = [f"edit {number}: {text[:200]}" for number, text in enumerate(verdicts) if text not in ("taken", "refused")]
    yield Outcome(
        "config edited at random",
        "equal round trip or a ConfigError; no traceback",
        tries,
        len(notes),
        not notes,
        {"taken": verdicts.count("taken"), "refused": verdicts.count("refused")},
        notes[:5],
    )
