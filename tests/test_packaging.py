"""What `pyproject.toml`, `constraints.txt` and the pages about this project say of packages, licences and versions."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
from importlib import metadata
from pathlib import Path

import pytest
import yaml
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
    """What the targets of the Makefile install of the project itself."""
    installed = re.findall(r"-e '\.\[([\w,]+)\]'", (ROOT / "Makefile").read_text())
    extras = sorted({extra for names in installed for extra in names.split(",")})
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


# --- licences and versions -----------------------------------------------------------------------------------------

FOR_DEVELOPERS = {"dev", "docs", "golden"}
"""Extras that nobody needs who uses the package."""


def listed_licences() -> dict[str, tuple[str, str]]:
    """Package -> licence, needed by; the table of docs/licences.md."""
    rows = re.findall(r"^\| `(\S+)` \| (.+) \| (.+) \|$", (ROOT / "docs" / "licences.md").read_text(), re.MULTILINE)
    return {name: (licence, needed_by) for name, licence, needed_by in rows}


def test_every_package_that_a_user_installs_is_on_the_page_of_licences() -> None:
    needed: dict[str, list[str]] = {}
    for line in PROJECT["dependencies"]:
        needed.setdefault(Requirement(line).name, []).append("every installation")
    for extra, lines in PROJECT["optional-dependencies"].items():
        for line in lines if extra not in FOR_DEVELOPERS else []:
            needed.setdefault(Requirement(line).name, []).append(f"extra `{extra}`")
    assert {name: needed_by for name, (_, needed_by) in listed_licences().items()} == {
        name: "; ".join(users) for name, users in needed.items()
    }


def own_words(package: str) -> list[str]:
    """The licence as the metadata of the installed package may put it."""
    about = metadata.metadata(package)
    classifiers = [line for line in about.get_all("Classifier") or [] if line.startswith("License ::")]
    return [
        about["License-Expression"] or "",
        about["License"] or "",
        *(line.split(" :: ")[-1] for line in classifiers),
    ]


@pytest.mark.parametrize("package", sorted(listed_licences()))
def test_the_licence_is_that_of_the_installed_package(package: str) -> None:
    """Only where it is installed in the version that the page speaks of."""
    try:
        installed = metadata.version(package).partition("+")[0]
    except metadata.PackageNotFoundError:
        pytest.skip(f"{package} is not installed")
    if installed != pinned()[canonicalize_name(package)]:
        pytest.skip(f"{package} {installed} is installed, not the version of constraints.txt")
    licence = listed_licences()[package][0].partition(";")[0]
    assert any(re.search(rf"\b{re.escape(licence)}\b", words) for words in own_words(package)), own_words(package)


def test_one_version_everywhere() -> None:
    headings = re.findall(r"^## (.+)$", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert headings[0] == "Unreleased"
    assert headings[1] == PROJECT["version"]
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert (citation["version"], citation["license"]) == (PROJECT["version"], PROJECT["license"])
    assert "Apache License" in (ROOT / "LICENSE").read_text()


def test_a_source_distribution_is_the_whole_package_and_needs_no_links(tmp_path: Path) -> None:
    """In it, what the links show are files: whoever builds a wheel of it gets what a checkout gives."""
    source = tmp_path / "source"
    for name in ("muzero_ray", "actors", "learner", "configs"):
        shutil.copytree(ROOT / name, source / name, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
    beside = ("launch.py", "pyproject.toml", "README.md", "CHANGELOG.md", "LICENSE", "NOTICE", "MANIFEST.in")
    for name in (*beside, "tests/test_packaging.py"):
        (source / name).parent.mkdir(exist_ok=True)
        shutil.copy2(ROOT / name, source / name)
    build = "import sys; from setuptools import build_meta; build_meta.build_sdist(sys.argv[1])"
    subprocess.run([sys.executable, "-c", build, str(tmp_path)], cwd=source, check=True, capture_output=True)
    (archive,) = tmp_path.glob("*.tar.gz")
    with tarfile.open(archive) as tar:
        files = {member.name.partition("/")[2]: member for member in tar.getmembers() if not member.isdir()}
    package = [
        Path(folder, name) for folder, _, names in os.walk(source / "muzero_ray", followlinks=True) for name in names
    ]
    assert {path.relative_to(source).as_posix() for path in package} <= files.keys()
    assert all(member.isreg() for member in files.values())
    assert {"CHANGELOG.md", "LICENSE", "NOTICE"} <= files.keys()
    assert not [name for name in files if name.startswith(("tests/", "actors/"))]
