"""Hosts on one machine: each in network, process and mount namespaces of its own, on a bridge that leads nowhere.

All are inside outer namespaces that `apart` makes. The machine's own network is never touched, and when the first
process in there ends, however it does, the kernel ends all others and removes links, bridge and mounts. Linux; root, or
user namespaces.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import psutil

from chaos.programs import until
from chaos.report import ROOT, Outcome, reported

NETWORK, BRIDGE = "10.77.0", "hosts"

PROGRAMS = ("ip", "mount", "nsenter", "setpriv", "unshare")
"""What this is done with, of iproute2 and util-linux."""

BOOT = (
    *("hostname {name}", "mount -t tmpfs tmpfs /dev/shm", "mount -t tmpfs tmpfs /tmp/ray", "ip link set lo up"),
    *("{{ test ! -e /etc/resolv.conf || mount --bind /dev/null /etc/resolv.conf; }}", "echo up", "exec sleep infinity"),
)
"""Ray's two places for what is of one machine; no name server, since waiting for one takes long. Then it sleeps."""

TRIAL = (
    f"ip link add {BRIDGE} type bridge && ip link add one type veth peer name other && mount -t tmpfs tmpfs /dev/shm"
)


def outer_namespaces() -> list[str]:
    """A command that runs the one behind it in namespaces in which it is root. They end with whoever started it."""
    user = () if os.geteuid() == 0 else ("--user", "--map-root-user")
    new = ("--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc")
    return ["setpriv", "--pdeathsig", "KILL", "unshare", *user, *new]


def unavailable() -> str | None:
    """Why there can be no hosts on this machine; None if there can."""
    if missing := [name for name in PROGRAMS if shutil.which(name) is None]:
        return f"there is no {', '.join(missing)} (Linux: iproute2, util-linux)"
    trial = subprocess.run([*outer_namespaces(), "sh", "-c", TRIAL], capture_output=True, text=True)
    if trial.returncode:
        return f"no namespaces or no bridge in them (root is needed, or user namespaces): {trial.stderr.strip()}"
    return None


def apart(module: str, tries: int, folder: Path) -> Iterator[Outcome]:
    """The outcomes that `module.main(tries, folder)` yields, run in the outer namespaces."""
    if reason := unavailable():
        raise RuntimeError(f"needs network namespaces: {reason}")
    yield from reported([*outer_namespaces(), sys.executable, "-m", module, str(tries), str(folder)])


def _run(*arguments: object, check: bool = True) -> None:
    subprocess.run([*map(str, arguments)], check=check, capture_output=not check)


def make_bridge() -> None:
    """What the hosts are connected by; it has no address and no way out."""
    _run("ip", "link", "add", BRIDGE, "type", "bridge")
    _run("ip", "link", "set", BRIDGE, "up")


class Host:
    """A machine with a name, an address and a link that can be cut; when it is killed all its processes are gone."""

    def __init__(self, name: str, number: int) -> None:
        self.name, self.address = name, f"{NETWORK}.{number}"
        self._hardware = f"02:00:00:00:00:{number:02x}"  # the same after a boot, as the others remember it
        self._link = f"to-{name}"
        self.boot()

    def boot(self) -> None:
        """Nothing runs on it yet."""
        self._entered: list[subprocess.Popen[bytes]] = []
        Path("/tmp/ray").mkdir(exist_ok=True)
        new = ("--net", "--mount", "--pid", "--uts", "--fork", "--kill-child", "--mount-proc")
        script = " && ".join(BOOT).format(name=self.name)
        self._process = subprocess.Popen(
            ["unshare", *new, "sh", "-c", script], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        assert self._process.stdout is not None
        if self._process.stdout.readline() != "up\n":
            raise RuntimeError(f"host {self.name} does not start: {self._process.communicate()[1].strip()}")
        (first,) = psutil.Process(self._process.pid).children()
        self._first = first.pid
        self._space = os.readlink(f"/proc/{self._first}/ns/pid")
        _run("ip", "link", "del", self._link, check=False)  # of its life before, if it is not gone yet
        peer = ("name", "eth0", "address", self._hardware, "netns", self._first)
        _run("ip", "link", "add", self._link, "type", "veth", "peer", *peer)
        _run("ip", "link", "set", self._link, "master", BRIDGE, "up")
        for command in (f"addr add {self.address}/24 dev eth0", "link set eth0 up", "route add default dev eth0"):
            _run(*self.enter(), "ip", *command.split())

    def enter(self) -> list[str]:
        """A command that runs the one behind it on this host."""
        return ["nsenter", f"--target={self._first}", "--net", "--mount", "--pid", "--uts", "env", f"--chdir={ROOT}"]

    def start(self, command: list[str], environment: Mapping[str, str], log: Path) -> subprocess.Popen[bytes]:
        """A program on it; what it prints goes to `log`. Its exit code is that of the returned process."""
        with log.open("ab") as out:
            entered = subprocess.Popen(
                [*self.enter(), *command], stdout=out, stderr=out, env=dict(environment), start_new_session=True
            )
        self._entered.append(entered)
        return entered

    def link(self, *, up: bool) -> None:
        """Its cable, at the bridge's end."""
        _run("ip", "link", "set", self._link, "up" if up else "down")

    def kill(self) -> None:
        """kill -9 of all its processes, at once."""
        os.kill(self._first, signal.SIGKILL)
        for entered in self._entered:  # an nsenter stops when its program is stopped, and then never reaps it
            entered.send_signal(signal.SIGCONT)
        self._process.wait()

    def processes(self, containing: str = "") -> list[psutil.Process]:
        """That run on it, with this in their command lines."""
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error, OSError):  # gone since
                here = os.readlink(f"/proc/{process.pid}/ns/pid") == self._space and process.pid != self._first
                if here and containing in " ".join(process.cmdline()) and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(process)
        return found

    def empties(self, seconds: float) -> bool:
        """Whether nothing runs on it any more within so long."""
        return until(lambda: not self.processes(), seconds)
