"""What `pyproject.toml` and `constraints.txt` say of packages, compared with what the source imports."""

from __future__ import annotations

import re
import sys
import tomllib

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.test_layering import ROOT, imports, modules

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]

IMPORTED_AS = {
    "imageio-ffmpeg": "imageio_ffmpeg",
    "ale-py": "ale_py",
    "opencv-python-headless": "cv2",
    "pyyaml": "yaml",
    "typing-extensions": "typing_extensions",
}
"""Packages whose modules are called otherwise."""

COMES_WITH = {"pydantic_core": "pydantic"}
"""Modules of packages that another one requires in one exact version."""

OPTIONAL = {"onnx", "onnxruntime", "openvino", "pandas", "pyspiel"}
"""Modules of extras, and pandas, which only `MetricsTable.to_pandas` needs. Messages about a missing one name how to
install it."""


def test_the_package_depends_on_what_it_imports_and_nothing_else() -> None:
    imported = {name.split(".")[0] for path in modules().values() for name in imports(path)}
    names = [Requirement(line).name for line in PROJECT["dependencies"]]
    needed = {IMPORTED_AS.get(name, name) for name in names}
    assert imported - sys.stdlib_module_names - OPTIONAL - COMES_WITH.keys() - {"muzero_ray"} == needed
    assert set(COMES_WITH.values()) <= needed


def pinned() -> dict[str, str]:
    lines = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if not line.startswith("#")]
    return {canonicalize_name(name): version for name, _, version in (line.partition("==") for line in lines)}


def installed_by_make() -> list[Requirement]:
    """Of the project itself, what `make test` installs."""
    extras = re.findall(r"-e '\.\[([\w,]+)\]'", (ROOT / "Makefile").read_text())[-1].split(",")
    optional = [line for extra in extras for line in PROJECT["optional-dependencies"][extra]]
    return [Requirement(line) for line in (*PROJECT["dependencies"], *optional)]


@pytest.mark.parametrize("requirement", installed_by_make(), ids=str)
def test_the_constraints_fit_what_is_required(requirement: Requirement) -> None:
    version = pinned().get(canonicalize_name(requirement.name))
    assert version, f"constraints.txt has no line for {requirement.name}"
    assert requirement.specifier.contains(version)


def test_the_constraints_fit_any_machine() -> None:
    """No version of one build, such as 2.13.0+cpu, and no path."""
    assert all(re.fullmatch(r"[0-9][0-9a-z.]*", version) for version in pinned().values())
    assert "muzero-ray" not in pinned()
