"""Workflows, hooks, issue templates and the site: what they name is there."""

from __future__ import annotations

import re
import shlex
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

import muzero_ray as mz
from muzero_ray.cli.parse import parse_args

ROOT = Path(__file__).parent.parent
MAKEFILE = (ROOT / "Makefile").read_text()
TARGETS = set(re.findall(r"^([a-z]+):", MAKEFILE, re.MULTILINE))
WORKFLOWS = sorted((ROOT / ".github" / "workflows").iterdir())
TEMPLATES = sorted((ROOT / ".github" / "ISSUE_TEMPLATE").iterdir())


def read(path: Path) -> Any:
    return yaml.safe_load(path.read_text())


# --- workflows -----------------------------------------------------------------------------------------------------


def steps(path: Path) -> Iterator[dict[str, Any]]:
    for job in read(path)["jobs"].values():
        yield from job["steps"]


def commands() -> list[str]:
    """Every line that a workflow or .ci/run has a shell execute."""
    lines = [line for path in WORKFLOWS for step in steps(path) for line in step.get("run", "").splitlines()]
    return [*lines, *re.findall(r"^part (.+)$", (ROOT / ".ci" / "run").read_text(), re.MULTILINE)]


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_a_workflow_says_when_it_runs_and_with_which_rights(path: Path) -> None:
    workflow = read(path)
    assert workflow[True].keys() == {"push", "pull_request"}  # YAML reads the key `on` as true
    assert workflow["permissions"] == {"contents": "read"}
    for job in workflow["jobs"].values():
        assert all(("run" in step) != ("uses" in step) for step in job["steps"])
        assert set(job.get("needs", "").split()) <= workflow["jobs"].keys()
    assert all(re.fullmatch(r"actions/[\w-]+@v\d+", step["uses"]) for step in steps(path) if "uses" in step)


@pytest.mark.parametrize("command", sorted(set(commands())))
def test_what_ci_runs_exists(command: str) -> None:
    program, *words = shlex.split(command)
    if program == "make":
        variables = {word.partition("=")[0] for word in words if "=" in word}
        assert {word for word in words if "=" not in word} <= TARGETS
        assert all(f"$({name})" in MAKEFILE for name in variables)
    elif program.endswith("/muzero-ray"):
        parse_args(words)
        assert "muzero-ray" in tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
    elif program.endswith("/pip"):
        assert (ROOT / words[words.index("-c") + 1]).is_file()
        assert f"--wheel-dir {Path(words[-1]).parent} " in MAKEFILE
    else:
        assert (program, *words[:2]) == ("python", "-m", "venv")


def test_every_python_that_is_promised_is_tested() -> None:
    (tests,) = [job for path in WORKFLOWS for name, job in read(path)["jobs"].items() if name == "tests"]
    lowest = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["requires-python"].removeprefix(">=")
    assert tests["strategy"]["matrix"]["python"][0] == lowest
    markers = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["pytest"]["ini_options"]["markers"]
    (macos,) = [command for command in commands() if "-m " in command and command.startswith("make")]
    left_out = set(re.findall(r"not (\w+)", macos))
    assert left_out <= {marker.partition(":")[0] for marker in markers}
    assert left_out


# --- hooks and templates -------------------------------------------------------------------------------------------


def test_hooks_are_what_make_lint_runs() -> None:
    (repository,) = read(ROOT / ".pre-commit-config.yaml")["repos"]
    assert repository["repo"] == "local"
    hooks = {hook["entry"].removesuffix(" --force-exclude") for hook in repository["hooks"]}
    lint = MAKEFILE.partition("\nlint:")[2].partition("\n\n")[0]
    assert hooks == {f".venv/bin/{line}" for line in re.findall(r"^\t\$\(BIN\)/(.+) \.$", lint, re.MULTILINE)}


@pytest.mark.parametrize("path", TEMPLATES, ids=lambda path: path.name)
def test_a_template_has_what_github_asks_for(path: Path) -> None:
    template = read(path)
    if path.name == "config.yml":
        assert template == {"blank_issues_enabled": True}
        return
    assert template.keys() == {"name", "description", "labels", "body"}
    for field in template["body"]:
        assert field.keys() <= {"type", "attributes", "validations"}
        assert field["type"] in ("textarea", "input", "checkboxes")
        assert "label" in field["attributes"]
    for page in re.findall(r"docs/[\w.]+\.md", path.read_text()):
        assert (ROOT / page).is_file()


# --- the site ------------------------------------------------------------------------------------------------------


def pages(nav: Any) -> Iterator[str]:
    if isinstance(nav, str):
        yield nav
    else:
        for entry in nav.values() if isinstance(nav, dict) else nav:
            yield from pages(entry)


def test_every_page_is_in_the_menu_once() -> None:
    documents = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]
    assert sorted(pages(read(ROOT / "mkdocs.yml")["nav"])) == sorted(str(path.relative_to(ROOT)) for path in documents)


def test_the_site_is_where_the_makefile_and_the_workflow_look() -> None:
    site = read(ROOT / "mkdocs.yml")
    assert f"docs examples deploy {site['docs_dir']}\n" in MAKEFILE
    uploaded = [
        step["with"]["path"] for path in WORKFLOWS for step in steps(path) if "upload-pages" in step.get("uses", "")
    ]
    assert uploaded == [site["site_dir"]]


def test_the_api_page_lists_every_public_name() -> None:
    text = (ROOT / "docs" / "api.md").read_text()
    listed = re.findall(r"^::: muzero_ray\.(\w+)$", text, re.MULTILINE)
    assert sorted(listed) == sorted(mz.__all__)
