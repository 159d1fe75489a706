"""What other packages do not document stands in one module for each of them, and is still there."""

from __future__ import annotations

import importlib
import re
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement

from tests.test_layering import imports, modules
from tests.test_packaging import PROJECT

PRIVATE = re.compile(r"numba\.(core|np)\b|ray\._|openvino\.frontend\b")
"""Modules that are private to their packages, or that nothing promises to keep."""

USED = {
    "muzero_ray.search.numba_internals": (
        "numba.core.cgutils:get_or_insert_function",
        "numba.core.cgutils:ir.FunctionType",
        "numba.core.cgutils:ir.IntType",
        "numba.core.cgutils:ir.VoidType",
        "numba.core.cgutils:unpack_tuple",
        "numba.core.options:DefaultOptions._nrt",
        "numba.np.arrayobj:make_array",
        "numba.np.arrayobj:populate_array",
    ),
    "muzero_ray.actors.ray_internals": (
        "ray._private.node:Node.dead_processes",
        "ray._private.node:Node.get_logs_dir_path",
        "ray._private.node:Node.kill_all_processes",
        "ray._private.services:canonicalize_bootstrap_address",
        "ray._private.utils:set_sigterm_handler",
        "ray._private.worker:_global_node",
        "ray._raylet:AuthenticationMode.TOKEN",
        "ray._raylet:get_authentication_mode",
    ),
    "muzero_ray.inference.openvino_internals": (
        "openvino.frontend:FrontEndManager.load_by_framework",
        "openvino.frontend:FrontEnd.convert",
        "openvino.frontend:FrontEnd.load",
        "openvino.frontend.pytorch.ts_decoder:TorchScriptPythonDecoder",
    ),
}
"""Module of ours -> `module:name` of theirs. What objects have only once they are made is left to the other tests."""

NAMES = [(ours, theirs) for ours, names in USED.items() for theirs in names]


@pytest.mark.parametrize(("ours", "theirs"), NAMES)
def test_the_name_is_still_there(ours: str, theirs: str) -> None:
    module, _, name = theirs.partition(":")
    remedy = f"{theirs} is gone from this version of {module.split('.')[0]}: adapt {ours}, or lower the upper bound"
    try:
        found: Any = importlib.import_module(module)
    except ImportError as error:
        pytest.fail(f"{remedy} ({error})")
    for part in name.split("."):
        assert hasattr(found, part), remedy
        found = getattr(found, part)


@pytest.mark.parametrize(("ours", "theirs"), NAMES)
def test_the_name_is_used(ours: str, theirs: str) -> None:
    """So that the list above does not outlive what it is about."""
    assert re.search(rf"\b{theirs.rpartition(':')[2].rpartition('.')[2]}\b", modules()[ours].read_text())


def named(path: Path) -> set[str]:
    """Private modules that a source file imports, or reaches by their dotted names."""
    dotted = re.findall(r"^[^#\"`\n]*?\b((?:ray|numba|openvino)\.[\w.]+)", path.read_text(), re.MULTILINE)
    return {name for name in (*imports(path), *dotted) if PRIVATE.match(name)}


def test_only_those_modules_name_what_is_private() -> None:
    assert {name for name, path in modules().items() if named(path)} == set(USED)


@pytest.mark.parametrize("name", ["numba", "ray", "openvino"])
def test_the_package_has_an_upper_bound_wherever_it_is_required(name: str) -> None:
    lines = [*PROJECT["dependencies"], *(line for extra in PROJECT["optional-dependencies"].values() for line in extra)]
    found = [requirement for line in lines if (requirement := Requirement(line)).name == name]
    assert found
    assert all(any(bound.operator == "<" for bound in requirement.specifier) for requirement in found)
