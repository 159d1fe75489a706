"""Hosts whose link is cut and whose processes are killed; what is compared of a run on them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from chaos import hosts
from chaos.hosts import apart, outer_namespaces, unavailable
from chaos.joined import Games, Run, compare
from chaos.report import ROOT
from chaos.witness import ACKNOWLEDGED, REFUSED, TARGET, Note
from chaos.witnessed_launch import TargetRunState
from muzero_ray.config.schema import Config
from muzero_ray.types import GameId
from tests.patience import PATIENCE


@pytest.mark.skipif(unavailable() is not None, reason=str(unavailable()))
def test_hosts_are_cut_off_and_killed_and_nothing_is_left(tmp_path: Path) -> None:
    before = subprocess.run(["ip", "link"], capture_output=True).stdout
    command = [*outer_namespaces(), sys.executable, "-m", "tests.chaos.two_hosts", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=PATIENCE)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == [True, False, True, [0, 1], True, True, False, True]
    assert subprocess.run(["ip", "link"], capture_output=True).stdout == before


def test_a_machine_without_namespaces_says_what_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hosts, "PROGRAMS", ("sh", "no-such-program"))
    with pytest.raises(RuntimeError, match="needs network namespaces: there is no no-such-program"):
        next(apart("chaos.nodes", 1, tmp_path))
    monkeypatch.setattr(hosts, "PROGRAMS", ())
    monkeypatch.setattr(hosts, "outer_namespaces", lambda: ["sh", "-c", "echo not permitted >&2; exit 1"])
    assert "not permitted" in str(unavailable())


def ids(*games: tuple[int, int, int]) -> list[GameId]:
    return [GameId(*game) for game in games]


@pytest.mark.parametrize(
    ("told", "declined", "arrived", "found"),
    [
        # Replaced, and the successor plays; of another actor an earlier incarnation may come at any time.
        (ids((0, 0, 1), (0, 1, 1)), [], ids((0, 0, 1), (0, 1, 1)), Games(2, 0, 0, 0, 0)),
        (ids((0, 1, 1), (1, 0, 1)), [], ids((0, 1, 1), (1, 0, 1)), Games(2, 0, 0, 0, 0)),
        # A push that came after the successor's: refused, whether its actor heard of it or not; or taken.
        (ids((0, 1, 1), (0, 0, 2)), ids((0, 0, 2)), ids((0, 1, 1)), Games(2, 0, 0, 0, 1)),
        (ids((0, 1, 1)), ids((0, 0, 2), (0, 0, 2)), ids((0, 1, 1)), Games(1, 0, 0, 0, 1)),
        (ids((0, 1, 1)), [], ids((0, 1, 1), (0, 0, 2)), Games(1, 0, 0, 1, 0)),
        # Sent twice, since the first answer did not arrive, and taken once.
        (ids((0, 0, 1), (0, 1, 1)), ids((0, 0, 1)), ids((0, 0, 1), (0, 1, 1)), Games(2, 0, 0, 0, 0)),
        # Acknowledged and nowhere; refused, though nobody had taken its place; there twice.
        (ids((0, 0, 1), (0, 0, 2)), [], ids((0, 0, 1)), Games(2, 1, 0, 0, 0)),
        (ids((0, 0, 1), (0, 0, 2)), ids((0, 0, 2)), ids((0, 0, 1)), Games(2, 1, 0, 0, 0)),
        (ids((0, 0, 1)), [], ids((0, 0, 1), (0, 0, 1)), Games(1, 0, 2, 0, 0)),
    ],
)
def test_games_lost_twice_late_and_refused_are_counted(
    told: list[GameId], declined: list[GameId], arrived: list[GameId], found: Games
) -> None:
    assert compare(set(told), declined, arrived, arrived) == found
    assert found.wrong == found.lost + found.twice + found.late


def note(actor: int, incarnation: int, seq: int, *, host: str = "b", at: float = 1.0) -> Note:
    return Note(GameId(actor, incarnation, seq), host, at)


def test_a_run_is_seen_by_the_notes_of_its_actors(tmp_path: Path) -> None:
    def write(*written: Note) -> None:
        for one in written:
            with (tmp_path / ACKNOWLEDGED.format(one.id.actor, one.id.incarnation)).open("a") as file:
                file.write(json.dumps(one) + "\n")

    b, c, nothing = SimpleNamespace(name="b"), SimpleNamespace(name="c"), Any
    run = Run(nothing, tmp_path, nothing, [b, c])  # type: ignore[arg-type, list-item]
    write(note(0, 0, 1, at=5.0), note(0, 0, 2, at=9.0), note(1, 0, 1, host="c", at=7.0))
    assert [one.id.seq for one in run.answers(b, 6.0)] == [2]  # type: ignore[arg-type]
    assert not run.succeeded({(0, 0), (1, 0)})
    write(note(1, 1, 1))
    assert run.succeeded({(0, 0), (1, 0)})
    assert not run.succeeded({(0, 0)})
    assert run.refused({(1, 0)}) == 0
    (tmp_path / REFUSED.format(0)).write_text("[1, 0, 2]\n[0, 0, 3]\n[1, 0")
    assert run.refused({(1, 0)}) == 1


def test_the_target_comes_when_the_harm_is_done(tmp_path: Path) -> None:
    run_state = TargetRunState(
        Config.model_validate({"env": {"id": "CartPole-v1"}, "run": {"runs_dir": str(tmp_path)}})
    )
    run_state.learner_at(300)
    assert run_state.stop_reason() is None
    (tmp_path / TARGET).write_text("400")
    assert run_state.stop_reason() is None
    run_state.learner_at(410)
    assert run_state.stop_reason() == "410 learner steps"
