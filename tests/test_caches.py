"""A user without a cache folder that can be written to, as in a container under any user id."""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

import pytest

from muzero_ray import caches
from tests.small_runs import run_serial, small_config
from tests.test_what_people_type import as_somebody_else

ROOT = Path(__file__).parent.parent


def test_a_cache_that_can_be_written_to_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "not" / "yet"))
    with caches.make_cache_writable():
        assert os.environ["XDG_CACHE_HOME"] == str(tmp_path / "not" / "yet")
    assert not (tmp_path / "not").exists()


def test_another_cache_is_private_and_stays_for_what_was_imported_with_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setenv("HOME", "/dev/null")
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    caches._temporary_cache.cache_clear()
    with caches.make_cache_writable():
        folder = Path(os.environ["XDG_CACHE_HOME"])
        assert folder.stat().st_mode & 0o777 == 0o700
        assert (folder.parent, os.environ["HOME"]) == (tmp_path, "/dev/null")
    assert "XDG_CACHE_HOME" not in os.environ
    with caches.make_cache_writable():
        assert os.environ["XDG_CACHE_HOME"] == str(folder)
    assert list(tmp_path.iterdir()) == [folder]
    caches._temporary_cache().remove()
    caches._temporary_cache.cache_clear()


CODE = """
import os, sys
import muzero_ray as mz

agent = mz.Agent.load(sys.argv[1])
assert agent.act([0.0, 0.0, 0.0, 0.0]) in (0, 1)
assert len(mz.evaluate(sys.argv[1], episodes=1).returns) == 1
assert "XDG_CACHE_HOME" not in os.environ
"""


def test_a_user_without_a_home_loads_an_agent(tmp_path: Path) -> None:
    """Nothing is left behind."""
    run, temporary = tmp_path / "run", tmp_path / "temporary"
    assert run_serial(small_config(), run)
    temporary.mkdir(mode=0o700)
    os.chown(temporary, 54321, 54321)
    for folder in (tmp_path, *tmp_path.parents):
        folder.chmod(folder.stat().st_mode | 0o055)
    own = {"PYTHONPATH": str(ROOT), "TMPDIR": str(temporary), "HOME": "/nonexistent"}
    result = as_somebody_else(sys.executable, "-c", CODE, run, folder=tmp_path, **own)
    assert (result.returncode, result.stderr) == (0, "")
    assert list(temporary.iterdir()) == []
