"""The shape of the program, read from its source: who may import what, and that nothing imports in a circle."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

WITHOUT_A_ROOM = (
    "errors",
    "types",
    "host_memory",
    "printed",
    "stop_signals",
    "standard_streams",
    "private_folder",
    "caches",
    "user_paths",
    "user_modules",
)
"""What every room may use."""

LAYERS = (
    *WITHOUT_A_ROOM,
    "config",
    "envs",
    "networks",
    "inference",
    "search",
    "replay",
    "training",
    "acting",
    "evaluation",
    "runs",
    "agent",
    "control",
    "cli",
    "actors, learner",
    "launch",
    "api",
    "__main__",
)
"""The parts of `muzero_ray`, lower ones first. A module imports what is in its own layer or in a lower one, wherever in
the module the import stands. The two shells are one layer: each calls the other's workers."""

SHELLS = ("actors", "learner")
"""At the top of the repository; links make them parts of `muzero_ray`, which is how they are imported."""


def modules() -> dict[str, Path]:
    """Dotted name -> file, of everything but tests, benchmarks and chaos."""
    found = {"muzero_ray.launch": ROOT / "launch.py"}
    for folder in ("muzero_ray", *SHELLS):
        for path in (ROOT / folder).rglob("*.py"):
            parts = path.relative_to(ROOT).with_suffix("").parts
            if folder == "muzero_ray" and (len(parts) > 1 and parts[1] in (*SHELLS, "launch")):
                continue  # the links
            prefix = () if folder == "muzero_ray" else ("muzero_ray",)
            found[".".join((*prefix, *parts)).removesuffix(".__init__")] = path
    return found


@cache
def imports(path: Path, *, at_import_time: bool = False) -> frozenset[str]:
    """Every dotted name that `path` imports; `from a import b` counts as `a` and `a.b`.

    at_import_time: those only that are carried out when `path` itself is imported.
    """
    found: set[str] = set()
    stack: list[ast.AST] = [ast.parse(path.read_text())]
    while stack:
        node = stack.pop()
        lazy = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        typing_only = isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
        if at_import_time and (lazy or typing_only):
            continue
        stack.extend(ast.iter_child_nodes(node))
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            found.add(node.module or "")
            found.update(f"{node.module}.{alias.name}" for alias in node.names)
    return frozenset(found)


def part(module: str) -> str:
    """`acting` of `muzero_ray.acting.self_play`."""
    return module.split(".")[1]


def layer(module: str) -> int:
    """Its place in LAYERS, or an error if it has none."""
    return next(number for number, parts in enumerate(LAYERS) if part(module) in parts.split(", "))


def own_imports(name: str) -> set[str]:
    """The modules of the program that `name` imports anywhere."""
    return set(imports(modules()[name])) & set(modules()) - {"muzero_ray"}


def test_there_is_something_to_check() -> None:
    names = modules()
    assert len(names) > 130
    known = ("launch", "actors.supervisor", "learner.learner", "search.policies", "control.serial")
    assert {f"muzero_ray.{name}" for name in known} <= set(names)
    parts = [part(name) for name in names if name != "muzero_ray"]
    assert set(parts) == {one for parts in LAYERS for one in parts.split(", ")}


def test_the_shells_and_the_presets_are_parts_of_the_package() -> None:
    for name in (*SHELLS, "configs"):
        assert (ROOT / "muzero_ray" / name).resolve() == ROOT / name
    assert (ROOT / "muzero_ray" / "launch.py").resolve() == ROOT / "launch.py"


@pytest.mark.parametrize("name", sorted(modules()))
def test_nothing_imports_the_shells_under_another_name(name: str) -> None:
    roots = {module.split(".")[0] for module in imports(modules()[name])}
    assert not roots & {*SHELLS, "launch", "benchmarks", "chaos", "tests"}


@pytest.mark.parametrize("name", sorted(name for name in modules() if name != "muzero_ray"))
def test_imports_go_down(name: str) -> None:
    assert not {other for other in own_imports(name) if layer(other) > layer(name)}


def test_no_import_cycles() -> None:
    """Imports in functions and for type checkers count, too: two modules that name each other are one."""
    graph = {name: own_imports(name) for name in modules()}
    done: set[str] = set()

    def visit(name: str, trail: tuple[str, ...]) -> None:
        assert name not in trail, f"import cycle: {' -> '.join((*trail, name))}"
        if name not in done:
            for other in sorted(graph[name]):
                visit(other, (*trail, name))
            done.add(name)

    for name in graph:
        visit(name, ())


@pytest.mark.parametrize("name", sorted(modules()))
def test_only_the_shells_and_launch_import_ray(name: str) -> None:
    if part(f"{name}.") not in (*SHELLS, "launch"):
        assert "ray" not in {module.split(".")[0] for module in imports(modules()[name])}


@pytest.mark.parametrize("name", sorted(name for name in modules() if part(f"{name}.") in (*SHELLS, "launch")))
def test_only_calls_calls_workers(name: str) -> None:
    """Everybody else gives it a method of the worker's class, whose name and arguments mypy checks."""
    asked = [node.attr for node in ast.walk(ast.parse(modules()[name].read_text())) if isinstance(node, ast.Attribute)]
    assert ("remote" in asked) == (name == "muzero_ray.actors.calls")


@pytest.mark.parametrize("room", ["search", "replay"])
def test_search_and_replay_load_no_torch(room: str) -> None:
    """Nor does what they import."""
    names = modules()
    reached = {name for name in names if name.startswith(f"muzero_ray.{room}.")}
    waiting = list(reached)
    while waiting:
        found = imports(names[waiting.pop()], at_import_time=True)
        assert "torch" not in {module.split(".")[0] for module in found}
        new = set(found) & set(names) - reached
        reached |= new
        waiting += new
    assert not {name for name in reached if name.startswith(("muzero_ray.networks", "muzero_ray.inference"))}


def test_the_processes_of_the_services_load_no_torch_and_no_network() -> None:
    """Replay and the parameter server begin anew after a death while the others wait for them."""
    code = "import sys, muzero_ray.actors.replay, muzero_ray.actors.parameter_server; print(*sys.modules, sep=chr(10))"
    printed = subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT, capture_output=True, text=True).stdout
    loaded = set(printed.split())
    assert "muzero_ray.replay.buffer" in loaded
    assert not loaded & {"torch", "gymnasium", "openvino", "wandb"}
    rooms = {part(name) for name in loaded if name.startswith("muzero_ray.")} - set(WITHOUT_A_ROOM)
    assert rooms == {"actors", "config", "envs", "replay", "runs"}


def test_the_core_works_without_ray() -> None:
    code = "import sys; sys.modules['ray'] = None; import muzero_ray.control.serial, muzero_ray.cli.start"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


def test_the_page_names_every_room_and_module_in_this_order() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text()
    table = text.partition("| room | files |")[2].partition("\n\n")[0]
    rows = dict(re.findall(r"^\| (?:`(\w+)`|\(none\)) \| (.+) \|$", table, re.MULTILINE))
    assert list(rows) == ["", *LAYERS[len(WITHOUT_A_ROOM) : LAYERS.index("actors, learner")]]
    named = {room: set(re.findall(r"\w+", " ".join(re.findall(r"`([\w ]+)`", row)))) for room, row in rows.items()}
    for name in modules():
        parts = name.split(".")[1:]
        if len(parts) == 2 and parts[0] not in SHELLS:
            assert parts[1] in named[parts[0]], name
        elif len(parts) == 1 and parts[0] not in (*named, *SHELLS, "launch", "api", "__main__"):
            assert parts[0] in named[""], name
