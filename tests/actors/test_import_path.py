"""Workers import exactly what the driver imported, whatever is in the directory that it was started in."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

from muzero_ray.actors.import_path import CODE, added_path, driver_path, folder_of, job_config
from muzero_ray.actors.ray_folder import SOCKET_BYTES, SOCKET_NAME_BYTES
from muzero_ray.private_folder import NAME_BYTES
from tests.patience import PATIENCE

ROOT = Path(__file__).parents[2]

COMMANDS = [
    ["-m", "launch"],
    ["-P", str(ROOT / "launch.py")],
    [str(ROOT / "launch.py")],
    [str(ROOT / "muzero_ray" / "launch.py")],
]
"""How the program may be started."""

DRIVER = """
import importlib, json, os, sys
sys.path.insert(1, os.environ["ROOT"])
from muzero_ray.actors.cluster import connected
with connected(json.loads(os.environ["ADDRESS"]), "test"):
    import ray

    def look(_):
        names = ("muzero_ray", "muzero_ray.actors.replay", "muzero_ray.learner.learner")
        found = {name: importlib.import_module(name).__file__ for name in ("my_environments", *names)}
        return found | {"here": os.getcwd(), "code": {name: open(found[name]).read() for name in names}}

    class Worker:
        pass

    seen = ray.get(ray.remote(Worker).options(num_cpus=0).remote().__ray_call__.remote(look))
    print(json.dumps(seen | {"temporary": ray._private.worker._global_node.get_temp_dir_path()}))
"""


@pytest.fixture
def hostile(tmp_path: Path) -> Path:
    """A directory with packages that are called as ours and must not be imported."""
    folder = tmp_path / "another project"
    for package in (*CODE, "actors", "learner"):
        (folder / package).mkdir(parents=True)
        (folder / package / "__init__.py").write_text("raise ImportError('from the current directory')\n")
    return folder


@pytest.fixture
def driver(tmp_path: Path) -> Path:
    """A program, and beside it a package of the user's that workers shall find as the program does."""
    folder = tmp_path / "program"
    (folder / "my_environments").mkdir(parents=True)
    (folder / "my_environments" / "__init__.py").write_text("")
    (folder / "driver.py").write_text(DRIVER)
    return folder / "driver.py"


def run(driver: Path, here: Path, address: str | None = None, **environment: str) -> dict:
    """What a worker of `driver`, started in `here`, imported from where."""
    variables = {"ROOT": str(ROOT), "ADDRESS": json.dumps(address)} | environment
    done = subprocess.run(
        [sys.executable, str(driver)],
        cwd=here,
        env=os.environ | variables,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def own_files() -> dict[str, Path]:
    """What a worker imports of this program."""
    package = ROOT / "muzero_ray"
    return {
        "muzero_ray": package / "__init__.py",
        "muzero_ray.actors.replay": package / "actors" / "replay.py",
        "muzero_ray.learner.learner": package / "learner" / "learner.py",
    }


@pytest.mark.ray
def test_workers_of_a_private_ray_import_what_the_driver_does(tmp_path: Path, hostile: Path, driver: Path) -> None:
    shared = tmp_path / "t"
    longest = SOCKET_BYTES - SOCKET_NAME_BYTES - NAME_BYTES
    if len(os.fsencode(shared)) > longest:  # the longest that Ray can use, if there is room for it
        shared = Path("/tmp", f"test-{os.getpid()}")
    shared = shared.with_name(shared.name.ljust(longest - len(os.fsencode(shared.parent)) - 1, "x"))
    shared.mkdir()
    try:
        seen = run(driver, hostile, TMPDIR=str(shared))
        assert {name: seen[name] for name in own_files()} == {name: str(file) for name, file in own_files().items()}
        assert seen["my_environments"] == str(driver.parent / "my_environments" / "__init__.py")
        assert seen["here"] == str(hostile)  # relative paths mean what they did
        assert Path(seen["temporary"]).parents[1] == shared
        assert list(shared.iterdir()) == []  # all of it went with the run
    finally:
        shared.rmdir()


@pytest.mark.ray
@pytest.mark.usefixtures("ray_cluster")
def test_workers_of_a_cluster_get_the_drivers_code(hostile: Path, driver: Path) -> None:
    import ray

    seen = run(driver, hostile, ray.get_runtime_context().gcs_address)
    assert seen["code"] == {name: file.read_text() for name, file in own_files().items()}
    assert not any(Path(seen[name]).is_relative_to(hostile) for name in own_files())
    assert seen["my_environments"] == str(driver.parent / "my_environments" / "__init__.py")


@pytest.mark.parametrize("how", COMMANDS)
def test_the_driver_imports_what_is_beside_it(hostile: Path, how: list[str]) -> None:
    command = [sys.executable, *how, "submit", "cartpole", "--address", "http://localhost:1", "--runs-dir", "/runs"]
    # As if installed: `-m` finds it, and puts the current directory before it.
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=hostile, env=environment, capture_output=True, text=True, timeout=PATIENCE)
    assert "no dashboard answers there" in done.stderr
    assert done.returncode == 2


def test_the_path_is_that_of_the_driver_in_its_order(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    library, packages = sysconfig.get_path("stdlib"), sysconfig.get_path("purelib")
    archive = f"python{sys.version_info.major}{sys.version_info.minor}.zip"
    path = ["", "/mine", "relative", f"{Path(library).parent}/{archive}", library, f"{library}/lib-dynload", packages]
    monkeypatch.setattr(sys, "path", path)
    assert driver_path() == [str(tmp_path), "/mine", str(tmp_path / "relative"), *path[3:]]
    assert added_path() == [str(tmp_path), "/mine", str(tmp_path / "relative")]
    # Each worker puts one entry after the other in front.
    assert job_config(["first", "second"])._py_driver_sys_path == ["second", "first"]


def test_a_current_directory_that_was_deleted_is_left_out(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    monkeypatch.setattr(sys, "path", ["", "/mine"])
    assert driver_path() == ["/mine"]
    monkeypatch.chdir(tmp_path)


def test_packages_are_found_where_this_process_has_them() -> None:
    assert [folder_of(name) for name in CODE] == [ROOT / name for name in CODE]
