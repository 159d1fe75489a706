"""The shape of the program, read from its source: who may import what."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGES = ("muzero_ray", "actors", "learner")
# Lower layers first: a package imports those before it, never those after.
LAYERS = (
    *("errors", "standard_streams", "printed", "private_folder", "caches", "stop_signals", "user_paths"),
    *("types", "config_base", "config_learning", "config_rules", "config"),
    *("config_check", "config_yaml", "config_file", "cli_commands", "cli_options", "cli"),
    *("envs", "networks", "search", "replay", "training", "runtime"),
)


def modules() -> dict[str, Path]:
    """Dotted name -> file, of everything but tests, benchmarks and chaos."""
    files = [ROOT / "launch.py", *(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))]
    return {".".join(f.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): f for f in files}


def imports(path: Path, *, at_import_time: bool = False) -> set[str]:
    """Every dotted name that `path` imports; `from a import b` counts as `a` and `a.b`."""
    tree = ast.parse(path.read_text())
    nodes: list[ast.AST] = []
    stack: list[ast.AST] = [tree]
    while stack:
        node = stack.pop()
        lazy = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        typing_only = isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
        if at_import_time and (lazy or typing_only):
            continue
        nodes.append(node)
        stack.extend(ast.iter_child_nodes(node))
    found: set[str] = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            found.add(node.module or "")
            found.update(f"{node.module}.{alias.name}" for alias in node.names)
    return found


def test_there_is_something_to_check() -> None:
    names = modules()
    assert len(names) > 40
    assert {
        "launch",
        "muzero_ray.actors.supervisor",
        "muzero_ray.learner.learner",
        "muzero_ray.search.policies",
    } <= set(names)


@pytest.mark.parametrize("name", sorted(modules()))
def test_imports_stay_in_their_layer(name: str) -> None:
    roots = {module.split(".")[0] for module in imports(modules()[name])}
    assert not roots & {"launch", "benchmarks", "chaos"}
    if name.startswith("muzero_ray"):
        assert not roots & {"ray", "actors", "learner"}
    if name.startswith("actors"):
        assert "learner" not in roots
    if name.startswith("learner"):
        assert "actors" not in roots


@pytest.mark.parametrize("name", sorted(m for m in modules() if m.count(".") >= 1 and m.startswith("muzero_ray")))
def test_the_core_imports_downwards(name: str) -> None:
    layer = LAYERS.index(name.split(".")[1])
    above = {f"muzero_ray.{other}" for other in LAYERS[layer + 1 :]}
    # Function-level imports may reach up where start-up time demands it (the command line asks for a game's name).
    found = imports(modules()[name], at_import_time=True)
    assert not {module for module in found if any(module == a or module.startswith(a + ".") for a in above)}


def test_search_and_replay_know_no_torch() -> None:
    for name, path in modules().items():
        if name.startswith(("muzero_ray.search", "muzero_ray.replay")):
            assert not {"torch", "muzero_ray.networks"} & {m for i in imports(path) for m in (i, i.rpartition(".")[0])}


def test_no_import_cycles() -> None:
    names = modules()
    graph = {name: imports(path, at_import_time=True) & set(names) for name, path in names.items()}
    done: set[str] = set()

    def visit(name: str, trail: tuple[str, ...]) -> None:
        assert name not in trail, f"import cycle: {' -> '.join((*trail, name))}"
        if name not in done:
            for other in graph[name]:
                visit(other, (*trail, name))
            done.add(name)

    for name in graph:
        visit(name, ())


def test_the_core_works_without_ray() -> None:
    code = "import sys; sys.modules['ray'] = None; import muzero_ray.control.serial"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)
