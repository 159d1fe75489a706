"""Temporary folders that nobody else can enter, and that no killed process leaves behind for ever."""

from __future__ import annotations

import os
import signal
import socket
import stat
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from muzero_ray import private_folder
from muzero_ray.errors import ConfigError
from muzero_ray.private_folder import NAME_BYTES, OWNER, PrivateFolder, private_temporary_files, temporary_folder

ROOT = Path(__file__).parents[1]

HOLDER = """
import sys
from pathlib import Path
from muzero_ray.private_folder import PrivateFolder
folder = PrivateFolder(Path(sys.argv[1]))
(folder.path / "inside" / "deep").mkdir(parents=True)
(folder.path / "inside" / "deep" / "file").write_text("x")
print(folder.path, flush=True)
sys.stdin.read()
"""


@pytest.fixture
def shared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A temporary folder for everybody, as /tmp is."""
    folder = tmp_path / "shared"
    folder.mkdir()
    folder.chmod(0o1777)
    monkeypatch.setenv("TMPDIR", str(folder))
    monkeypatch.setattr(tempfile, "tempdir", None)
    return folder


def holder(shared: Path) -> tuple[subprocess.Popen[str], Path]:
    """A process that has a private folder, and that folder."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(shared)], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    return process, Path(process.stdout.readline().strip())


def forged(folder: Path) -> Path:
    """One that looks like the leftover of a killed process on this host."""
    folder.mkdir(mode=0o700)
    (folder / OWNER).write_text(f"{socket.gethostname()}\n")
    return folder


def test_only_its_user_can_enter_it_whatever_the_umask(shared: Path) -> None:
    before = os.umask(0)
    try:
        made = PrivateFolder()
    finally:
        os.umask(before)
    assert made.path.parent == shared
    assert len(os.fsencode(made.path)) == len(os.fsencode(shared)) + NAME_BYTES
    assert stat.S_IMODE(made.path.stat().st_mode) == 0o700
    made.remove()
    made.remove()
    assert list(shared.iterdir()) == []


def test_it_goes_with_its_block_and_with_its_process(shared: Path) -> None:
    with PrivateFolder() as folder:
        (folder / "file").write_text("x")
    assert list(shared.iterdir()) == []
    process, folder = holder(shared)
    assert folder.is_dir()
    process.communicate("")
    assert process.returncode == 0
    assert list(shared.iterdir()) == []


def test_what_a_killed_process_left_is_removed_by_the_next_and_what_a_living_one_has_is_not(shared: Path) -> None:
    killed, left = holder(shared)
    living, kept = holder(shared)
    os.kill(killed.pid, signal.SIGKILL)
    killed.communicate()
    assert (left / "inside" / "deep" / "file").is_file()
    with PrivateFolder() as folder:
        assert sorted(shared.iterdir()) == sorted((kept, folder))
        assert (kept / "inside" / "deep" / "file").is_file()
    living.communicate("")


def test_nothing_else_is_taken_for_a_leftover(shared: Path, tmp_path: Path) -> None:
    own = shared / "muzero-results"  # somebody's own, by chance
    own.mkdir(mode=0o700)
    (own / "file").write_text("x")
    forged(tmp_path / "elsewhere")
    (shared / "muzero-link").symlink_to(tmp_path / "elsewhere")
    another_host = forged(shared / "muzero-host")
    (another_host / OWNER).write_text("another.host\n")
    forged(shared / "muzero-open").chmod(0o755)
    (shared / "muzero-file").write_text("x")
    pipe = shared / "muzero-pipe"
    pipe.mkdir(mode=0o700)
    os.mkfifo(pipe / OWNER)
    before = sorted(tmp_path.rglob("*"))
    with PrivateFolder():
        pass
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder away")
def test_what_another_user_planted_is_left_alone(shared: Path) -> None:
    os.chown(forged(shared / "muzero-planted"), 12345, 12345)
    with PrivateFolder():
        pass
    assert (shared / "muzero-planted" / OWNER).is_file()


def test_links_in_a_leftover_are_not_followed(shared: Path, tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "file").write_text("x")
    left = forged(shared / "muzero-12345678")
    (left / "r").symlink_to(precious)
    (left / "deep").mkdir()
    (left / "deep" / "link").symlink_to(precious)
    with PrivateFolder():
        pass
    assert not left.exists()
    assert (precious / "file").read_text() == "x"


def test_a_place_in_which_everybody_may_rename_is_not_used(shared: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    below, other = shared / "below", shared.parent / "other"
    below.mkdir()
    other.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(below))
    assert temporary_folder() == below
    shared.chmod(0o777)  # as an emptyDir of Kubernetes: whoever can rename our folder can put another in its place
    monkeypatch.setattr(private_folder, "OTHERS", (str(shared), str(other)))
    assert temporary_folder() == other
    monkeypatch.setattr(private_folder, "OTHERS", (str(shared),))
    reason = r"TMPDIR=.*below: every user may rename what is in .*shared \(mode 0777; chmod \+t .*Set TMPDIR to another"
    with pytest.raises(ConfigError, match=reason):
        PrivateFolder()


def test_a_place_where_no_folder_can_be_made_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"TMPDIR=.*gone: no folder can be made there \(No such file.*Set TMPDIR"):
        PrivateFolder(tmp_path / "gone")


def test_temporary_files_of_all_libraries_go_with_the_run(shared: Path) -> None:
    before = os.environ["TMPDIR"]
    with private_temporary_files():
        here = Path(tempfile.mkdtemp())
        assert here.parent.parent == shared
        assert os.environ["TMPDIR"] == str(here.parent)  # as the processes that it starts see it
        assert stat.S_IMODE(here.parent.stat().st_mode) == 0o700
        assert temporary_folder() == shared  # one private folder is never inside another: paths of sockets are short
    assert list(shared.iterdir()) == []
    assert (os.environ["TMPDIR"], tempfile.gettempdir()) == (before, str(shared))
