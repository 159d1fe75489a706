"""What a user of the machine can try against another's run. Run as that user: `python -m chaos.intruder`.

Reads a Plan as JSON from standard input, and writes what came of it. Plain system calls: whatever works, counts.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path

GCS = "import ray._raylet as r; c = r.GcsClient(address={!r}); c.internal_kv_keys(b'', None); print('IN')"
"""Talks to Ray's control process."""

GCS_SECONDS = 60.0

CLAIMS = ({"RAY_AUTH_MODE": "disabled"}, {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "a guess"})


@dataclass
class Plan:
    """What there is to get at. link: where links that replace something shall lead."""

    paths: list[str] = field(default_factory=list)
    sockets: list[str] = field(default_factory=list)
    processes: list[int] = field(default_factory=list)
    gcs: list[str] = field(default_factory=list)
    http: list[str] = field(default_factory=list)
    link: str = ""


@dataclass
class Found:
    """tried: how many attempts there were. worked: those that were not refused."""

    tried: int = 0
    refused: int = 0
    worked: list[str] = field(default_factory=list)

    def attempt(self, name: str, action: Callable[[], object]) -> None:
        """Refused is a PermissionError, or nobody who listens; what is gone by now is not counted."""
        try:
            action()
        except (FileNotFoundError, ProcessLookupError, NotADirectoryError, IsADirectoryError):
            return
        except (PermissionError, ConnectionRefusedError):
            self.tried += 1
            self.refused += 1
        except OSError as error:  # such as "not a socket": it was let through to there
            self.tried += 1
            self.worked.append(f"{name}: {error}")
        else:
            self.tried += 1
            self.worked.append(name)


def attack(plan: Plan) -> Found:
    found = Found()
    for name in plan.sockets:
        found.attempt(f"connected to {name}", lambda name=name: connect(name))  # type: ignore[misc]
    for name in sorted(plan.paths, key=len, reverse=True):  # what is above last: once it is replaced, all below is gone
        attack_path(found, Path(name), plan.link)
    for pid in plan.processes:
        attack_process(found, pid)
    for url in plan.http:
        found.attempt(f"answered at {url}", lambda url=url: ask(url))  # type: ignore[misc]
    for address in plan.gcs:
        for claim in CLAIMS:
            found.attempt(f"joined {address} with {claim}", lambda a=address, c=claim: join(a, c))  # type: ignore[misc]
    return found


def attack_path(found: Found, path: Path, link: str) -> None:
    """List, read, write, and put a link in the place of it."""
    aside = path.with_name(f"{path.name}.aside")
    found.attempt(f"listed {path}", lambda: os.listdir(path))
    found.attempt(f"entered {path}", lambda: os.chdir(path))
    os.chdir("/")
    found.attempt(f"made a file in {path}", lambda: os.close(os.open(path / "planted", os.O_CREAT | os.O_WRONLY)))
    found.attempt(f"read {path}", lambda: os.close(os.open(path, os.O_RDONLY | os.O_NONBLOCK)))
    found.attempt(f"opened {path} to write", lambda: os.close(os.open(path, os.O_WRONLY | os.O_NONBLOCK)))
    found.attempt(f"opened {path} to everybody", lambda: os.chmod(path, 0o777))
    found.attempt(f"made a link in {path}", lambda: os.symlink(link, path / "link"))
    found.attempt(f"replaced {path}", lambda: (os.rename(path, aside), os.symlink(link, path)))


def connect(path: str) -> None:
    with contextlib.closing(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)) as end:
        end.connect(path)


def attack_process(found: Found, pid: int) -> None:
    for name in ("environ", "mem", "maps"):
        found.attempt(f"read {name} of process {pid}", lambda name=name: Path(f"/proc/{pid}/{name}").read_bytes())  # type: ignore[misc]
    found.attempt(f"listed files of process {pid}", lambda: os.listdir(f"/proc/{pid}/fd"))
    found.attempt(f"looked into the folder of process {pid}", lambda: os.readlink(f"/proc/{pid}/cwd"))
    found.attempt(f"sent a signal to process {pid}", lambda: os.kill(pid, signal.SIGCONT))


def ask(url: str) -> None:
    """PermissionError for the answer 401."""
    try:
        urllib.request.urlopen(url, b"", timeout=30).close()
    except urllib.error.HTTPError as error:
        if error.code == 401:
            raise PermissionError from error
        raise


def join(address: str, claim: dict[str, str]) -> None:
    """PermissionError if the control process wants a token, or another."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")} | claim
    command = [sys.executable, "-c", GCS.format(address)]
    with subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as client:
        assert client.stdout is not None
        killer = signal.signal(signal.SIGALRM, lambda *_: client.kill())
        signal.setitimer(signal.ITIMER_REAL, GCS_SECONDS)
        answer = next((line for line in client.stdout if "InvalidAuthToken" in line or line == "IN\n"), "no answer")
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, killer)
        client.kill()
    if "InvalidAuthToken" in answer:
        raise PermissionError(answer)
    if answer != "IN\n":
        raise FileNotFoundError(answer)


if __name__ == "__main__":
    print(json.dumps(asdict(attack(Plan(**json.load(sys.stdin))))))
