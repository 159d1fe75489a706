"""What the driver decides before Ray runs: whether workers fit, how much memory Ray gets."""

from __future__ import annotations

import ctypes
import os
import re
import resource
import socket
import subprocess
import sys
import tempfile
from collections import namedtuple
from pathlib import Path

import pytest

from muzero_ray.actors import cluster, ray_folder, user_limits
from muzero_ray.config.schema import Config
from muzero_ray.errors import ConfigError, MuZeroRayError


def config(count: int, *, reanalyze: float = 0.0, learners: int = 1) -> Config:
    """0.5 CPUs for each worker but the evaluator, which takes 0.1."""
    return Config.model_validate(
        {"actors": {"count": count}, "reanalyze": {"ratio": reanalyze}, "learner": {"workers": learners}}
    )


def test_workers_that_fit_need_no_word() -> None:
    assert cluster.check_cpus(config(2), 2.0, private=True) is None
    assert cluster.check_cpus(config(3), 0.1 + 4 * 0.5, private=True) is None
    assert cluster.check_cpus(config(2, reanalyze=1.0), 0.1 + 4 * 0.5, private=False) is None
    assert cluster.check_cpus(config(2, learners=4), 0.1 + 6 * 0.5, private=True) is None


@pytest.mark.parametrize("private", [True, False])
def test_workers_that_do_not_fit_are_announced_with_the_remedy(private: bool) -> None:
    text = cluster.check_cpus(config(8), 2.0, private=private)
    assert text is not None
    assert "4.6 CPUs are needed and 2 are free: 2 of 8 self-play actors start" in text
    assert "--actors" in text
    text = cluster.check_cpus(config(8, reanalyze=0.5), 2.0, private=private)
    assert text is not None
    assert "1 of 8" in text
    text = cluster.check_cpus(config(8, learners=2), 2.0, private=private)
    assert text is not None
    assert "5.1 CPUs are needed and 2 are free: 1 of 8" in text


def test_a_machine_on_which_nothing_would_ever_start_is_refused_but_a_cluster_may_grow() -> None:
    with pytest.raises(ConfigError, match=r"learner.cpus=0.5 and actors.num_cpus=0.5 need 1.1 CPUs"):
        cluster.check_cpus(config(2), 1.0, private=True)
    several = r"learner.cpus=0.5 for each of learner.workers=4 and actors.num_cpus=0.5 need 2.6 CPUs"
    with pytest.raises(ConfigError, match=several):
        cluster.check_cpus(config(2, learners=4), 2.0, private=True)
    text = cluster.check_cpus(config(2), 0.0, private=False)
    assert text is not None
    assert "0 of 2" in text


@pytest.mark.parametrize(
    ("memory_gib", "shared_gib", "expected_gib"),
    [(64, 32, 6.4), (8, 4, 1.0), (2, 1, 0.5), (64, 1, 0.9), (64, 0, cluster.LEAST_STORE_BYTES / 2**30)],
)
def test_the_object_store_follows_memory_and_shared_memory(
    memory_gib: float, shared_gib: float, expected_gib: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    memory, disk = namedtuple("memory", "total"), namedtuple("disk", "free")
    monkeypatch.setattr(cluster.psutil, "virtual_memory", lambda: memory(int(memory_gib * 2**30)))
    monkeypatch.setattr(cluster.shutil, "disk_usage", lambda _: disk(int(shared_gib * 2**30)))
    monkeypatch.setattr(Path, "is_dir", lambda _: True)
    assert cluster.object_store_bytes() / 2**30 == pytest.approx(expected_gib, rel=1e-6)


@pytest.mark.parametrize("blank", ["", " ", "\n"])
def test_a_blank_token_or_path_is_none(blank: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_AUTH_TOKEN", blank)
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", blank)
    monkeypatch.setenv("HOME", str(tmp_path))
    cluster.forget_blank_token()
    assert "RAY_AUTH_TOKEN" not in os.environ
    assert cluster.token_file() == tmp_path / ".ray" / "auth_token"
    monkeypatch.setenv("RAY_AUTH_TOKEN", "good")
    cluster.forget_blank_token()
    assert os.environ["RAY_AUTH_TOKEN"] == "good"


@pytest.mark.parametrize("content", ["", " \n"])
def test_a_blank_token_file_is_none_and_a_good_one_stays(
    content: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("RAY_AUTH_TOKEN", raising=False)
    monkeypatch.delenv("RAY_AUTH_MODE", raising=False)
    file = tmp_path / "auth_token"
    file.write_text(content)
    cluster.use_token(file)
    assert "RAY_AUTH_MODE" not in os.environ
    cluster.make_token(file)
    token = file.read_text()
    assert len(token) == 64
    assert file.stat().st_mode & 0o777 == 0o600
    cluster.make_token(file)
    assert file.read_text() == token


@pytest.mark.parametrize("address", ["auto", "HERE"])
def test_an_address_that_a_cluster_left_behind_is_refused_before_ray_looks_for_it(
    address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        stale = f"127.0.0.1:{server.getsockname()[1]}"
    monkeypatch.setenv("RAY_ADDRESS", stale)
    monkeypatch.setattr("ray.init", lambda **_: pytest.fail("Ray was asked"))
    with pytest.raises(ConfigError, match=r"there is no Ray cluster to join \(nothing answers at .*without --address"):
        cluster._join(stale if address == "HERE" else address, "test")


HEAPS = """
import ctypes, sys, threading
from muzero_ray.actors.cluster import limit_malloc_arenas
if "one" in sys.argv:
    limit_malloc_arenas()
threads_hold, seen = threading.Barrier(5), threading.Event()
def hold():
    held = [bytes(5_000) for _ in range(100)]
    threads_hold.wait()
    seen.wait()
threads = [threading.Thread(target=hold) for _ in range(4)]
for thread in threads:
    thread.start()
threads_hold.wait()
libc = ctypes.CDLL(None)
libc.fopen.restype = ctypes.c_void_p
file = ctypes.c_void_p(libc.fopen(b"/dev/stdout", b"w"))
libc.malloc_info(0, file)
libc.fclose(file)
seen.set()
"""
"""Prints what glibc has to say of its heaps while four threads hold memory."""


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "malloc_info"), reason="of glibc")
def test_threads_share_one_heap() -> None:
    def heaps(*words: str) -> int:
        done = subprocess.run([sys.executable, "-c", HEAPS, *words], capture_output=True, text=True, check=True)
        return done.stdout.count("<heap nr=")

    assert heaps() > 2
    assert heaps("one") == 1


GARBAGE = """
import gc, sys, weakref
from muzero_ray.actors.cluster import freeze_startup_objects
class Cycle:
    def __init__(self):
        self.itself = self
old = [[] for _ in range(1_000_000)]
gc.collect()
if "settled" in sys.argv:
    freeze_startup_objects()
cycle = Cycle()
seen = weakref.ref(cycle)
gc.collect(1)
del cycle
new = [[] for _ in range(200_000)]
print(seen() is None)
"""
"""Whether Python has found old garbage after as many new objects as are a fifth of the old ones."""


def test_garbage_goes_soon_once_the_heap_is_settled() -> None:
    def gone(*words: str) -> str:
        return subprocess.run(
            [sys.executable, "-c", GARBAGE, *words], capture_output=True, text=True, check=True
        ).stdout

    assert gone() == "False\n"
    assert gone("settled") == "True\n"


def long_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A temporary folder whose path is too long for sockets in it."""
    folder = tmp_path / ("x" * 60)
    folder.mkdir()
    monkeypatch.setenv("TMPDIR", str(folder))
    monkeypatch.delenv("RAY_TMPDIR", raising=False)
    monkeypatch.setattr(tempfile, "tempdir", None)
    return folder


def test_ray_keeps_its_files_where_temporary_files_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = long_folder(tmp_path, monkeypatch)
    monkeypatch.setattr(ray_folder, "SOCKET_BYTES", 1_000)
    assert ray_folder.folder_for_sockets() == (folder, None)
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))  # as Ray has it
    assert ray_folder.folder_for_sockets() == (tmp_path, None)
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path / "gone"))
    place, notice = ray_folder.folder_for_sockets()
    assert place == Path("/tmp").resolve()
    assert notice is not None
    assert notice.endswith(f"since RAY_TMPDIR={tmp_path / 'gone'}: that is not a folder that can be written to")


def test_a_path_too_long_for_sockets_is_avoided_and_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = long_folder(tmp_path, monkeypatch)
    place, notice = ray_folder.folder_for_sockets()
    assert place == Path("/tmp").resolve()
    assert notice is not None
    assert notice.startswith(
        f"Ray keeps its files in /tmp, since TMPDIR={folder}: its path of {len(str(folder))} bytes"
    )
    monkeypatch.setattr(ray_folder, "SOCKET_BYTES", 80)
    reason = r"TMPDIR=.*: its path of \d+ bytes is too long for sockets in it \(at most -\d+\). Set TMPDIR to another"
    with pytest.raises(ConfigError, match=reason):
        ray_folder.folder_for_sockets()


def test_what_was_never_imported_is_not_ended() -> None:
    """A signal while Ray is imported: importing the rest only to end it would fail, and hide why the program ends."""
    code = "import sys; from muzero_ray.actors import cluster; cluster.disconnect(); sys.exit('ray' in sys.modules)"
    assert (
        subprocess.run([sys.executable, "-c", code], cwd=Path(cluster.__file__).parents[2], check=False).returncode == 0
    )


@pytest.mark.parametrize(
    ("files", "processes", "remedy"),
    [
        (40, -1, r"limit of open files is 40: raise it \(ulimit -n 8192\)"),
        (1_024, 30, r"limit of processes and threads is 30: raise it \(ulimit -u 8192\)"),
        (-1, 4_096, "very busy"),
    ],
)
def test_a_ray_that_does_not_start_names_the_limit_that_is_too_low(
    files: int, processes: int, remedy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    limits = {resource.RLIMIT_NOFILE: (files, files), resource.RLIMIT_NPROC: (processes, processes)}
    monkeypatch.setattr(resource, "getrlimit", limits.__getitem__)
    assert re.search(remedy, user_limits.start_remedy())


def test_so_few_threads_that_ray_would_abort_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _: (30, 30))
    monkeypatch.setattr(os, "geteuid", lambda: 1_000)
    with pytest.raises(MuZeroRayError, match=r"Ray cannot start. The limit of .* is 30: raise it"):
        user_limits.refuse_few_threads()
    monkeypatch.setattr(os, "geteuid", lambda: 0)  # limits do not hold for root
    user_limits.refuse_few_threads()
