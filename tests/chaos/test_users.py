"""The other user of `python -m chaos users`: what works counts, and what is refused does not."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from chaos.intruder import Found, Plan, attack, attack_path


def refuse() -> None:
    raise PermissionError


def vanish() -> None:
    raise FileNotFoundError


def test_only_what_is_refused_is_refused() -> None:
    found = Found()
    for name, action in {"works": dict, "refused": refuse, "gone": vanish}.items():
        found.attempt(name, action)
    assert (found.tried, found.refused, found.worked) == (2, 1, ["works"])


def test_an_open_folder_is_listed_planted_in_and_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # the attack leaves for another directory
    logs, precious = tmp_path / "logs", tmp_path / "precious"
    logs.mkdir()
    precious.mkdir(mode=0o700)
    found = Found()
    attack_path(found, logs, str(precious))
    assert found.refused == 0
    assert [line.split(" ")[0] for line in found.worked] == [
        "listed",
        "entered",
        "made",
        "read",
        "opened",
        "made",
        "replaced",
    ]
    assert logs.readlink() == precious
    assert sorted(path.name for path in (tmp_path / "logs.aside").iterdir()) == ["link", "planted"]


def test_an_open_socket_is_connected_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("socket")
        server.listen()
        found = attack(Plan(sockets=["socket"]))
    assert found.worked == ["connected to socket"]
    assert attack(Plan(sockets=["socket"])).refused == 1  # nobody listens any more
