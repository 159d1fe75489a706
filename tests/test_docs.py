"""Links, files, names of code and settings in the documents exist. For commands: test_documented_commands.py."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

import pytest
from pydantic import BaseModel

import muzero_ray
from muzero_ray.config.kinds import fields_of
from muzero_ray.config.plugins import GROUP
from muzero_ray.config.schema import Config

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "muzero_ray"
PAGES = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md"))]
NAMING = [page for page in PAGES if page.name != "CHANGELOG.md"]
"""The change log speaks of names that were."""

ROOMS = {path.name for path in PACKAGE.iterdir() if path.is_dir() and path.name != "configs"}
SUFFIXES = "py|md|yaml|yml|json|toml|sh|ipynb|png"


def without_blocks(text: str) -> str:
    return re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE)


def spans(text: str) -> list[str]:
    """What stands in backticks; line breaks become blanks."""
    return [" ".join(span.split()) for span in re.findall(r"`([^`]+)`", without_blocks(text))]


# --- links ---------------------------------------------------------------------------------------------------------


def anchors(page: Path) -> set[str]:
    """The anchors of its headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", without_blocks(page.read_text()), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def dead_links(page: Path, text: str) -> list[str]:
    dead = []
    for target in re.findall(r"\]\(([^)\s]+)\)", re.sub(r"`[^`]*`", "", without_blocks(text))):
        if re.match(r"\w+:", target):
            continue
        name, _, anchor = target.partition("#")
        file = page.parent / name if name else page
        if not file.exists() or (anchor and anchor not in anchors(file)):
            dead.append(target)
    return dead


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    assert not dead_links(page, page.read_text())


@pytest.mark.parametrize(
    ("link", "dead"),
    [
        ("results.md", False),
        ("nowhere.md", True),
        ("results.md#notes", False),
        ("results.md#nowhere", True),
        ("#nowhere", True),
        ("../Makefile", False),
        ("https://example.org/nowhere", False),
    ],
)
def test_a_dead_link_is_found(link: str, dead: bool) -> None:
    assert dead_links(ROOT / "docs" / "learning.md", f"See [this]({link}).") == ([link] if dead else [])


# --- names ---------------------------------------------------------------------------------------------------------


@cache
def sources() -> list[Path]:
    return [path for folder in ("muzero_ray", "actors", "learner") for path in (ROOT / folder).rglob("*.py")]


def file_named(name: str) -> Path | None:
    """A path from the top, or from muzero_ray/; a bare file name where one module alone has it."""
    for base in (ROOT, PACKAGE):
        if (base / name).exists():
            return base / name
    alone = [path for path in sources() if path.name == name]
    return alone[0] if len(alone) == 1 else None


@cache
def names_in(file: Path) -> set[str]:
    """What a module defines or imports, at any depth."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text())):
        match node:
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
                found.add(name)
            case ast.Name(id=name, ctx=ast.Store()) | ast.Attribute(attr=name, ctx=ast.Store()):
                found.add(name)
            case ast.alias(name=name):
                found.add(name)
    return found


def is_setting(words: list[str]) -> bool:
    section: object = Config
    for word in words:
        if not (isinstance(section, type) and issubclass(section, BaseModel) and word in fields_of(section)):
            return False
        section = fields_of(section)[word].annotation
    return True


def is_code(words: list[str]) -> bool:
    """A room, a module, a name in one, or a public name: `replay.targets.n_step_values`, `launch`, `train`."""
    path = PACKAGE
    while words and (path / words[0]).is_dir():
        path, words = path / words[0], words[1:]
    if not words:
        return True
    module = path / f"{words[0]}.py"
    if module.exists():
        return names_in(module).issuperset(words[1:])
    return path == PACKAGE and words[0] in muzero_ray.__all__


def dead_names(text: str) -> list[str]:
    dead = []
    for span in spans(text):
        # `search/tree.py`, `tree.py: expand, backup_step`
        if match := re.fullmatch(rf"([\w./-]*\w\.(?:{SUFFIXES}))(?:: ([\w., ]+))?", span):
            file = file_named(match[1])
            names = re.findall(r"\w+", match[2] or "")
            if (file is None and ("/" in match[1] or match[1].endswith(".py"))) or (
                file is not None and file.suffix == ".py" and not names_in(file).issuperset(names)
            ):
                dead.append(span)
        # `muzero_ray.api.train`, `search.c_scale`, `learner.lr_final=0.02`
        elif match := re.fullmatch(r"(\w+(?:\.\w+)+)(?:[=:].*)?", span):
            words = match[1].split(".")
            if words[0] == "muzero_ray":
                dead += [] if match[1] == GROUP or is_code(words[1:]) else [span]
            elif words[0] in {*ROOMS, *Config.model_fields} and not (is_setting(words) or is_code(words)):
                dead.append(span)
        # `--learner.consistency-weight 2`
        for option in re.findall(r"--([a-z]+\.[\w.-]+)", span):
            if not is_setting(option.replace("-", "_").split(".")):
                dead.append(span)
    return dead


@pytest.mark.parametrize("page", NAMING, ids=lambda page: str(page.relative_to(ROOT)))
def test_names_of_code_and_settings_exist(page: Path) -> None:
    assert not dead_names(page.read_text())


@pytest.mark.parametrize(
    ("good", "dead"),
    [
        ("search/tree.py", "search/nowhere.py"),
        ("tests/test_docs.py", "tests/nowhere.py"),
        ("tree.py: expand, backup_step", "tree.py: expand, nowhere"),
        ("training/learner.py: Learner.train_step", "training/learner.py: Learner.nowhere"),
        ("muzero_ray.launch", "muzero_ray.nowhere"),
        ("muzero_ray.replay.targets.n_step_values", "muzero_ray.replay.targets.nowhere"),
        ("muzero_ray.train", "muzero_ray.nowhere.train"),
        ("search.c_scale", "search.nowhere"),
        ("network.value.max: 30", "network.value.nowhere: 30"),
        ("--learner.consistency-weight 2", "--learner.nowhere 2"),
    ],
)
def test_a_dead_name_is_found(good: str, dead: str) -> None:
    assert dead_names(f"`{good}` and `{dead}`") == [dead]
