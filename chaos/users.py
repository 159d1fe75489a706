"""Another user of the machine who tries to get at a run: its folders, sockets, ports and processes.

Two users, made for this and removed again. In a mount namespace of its own, where /tmp, /var/tmp and /dev/shm are new,
so that all that is in there is of these two. Linux; root.
"""

from __future__ import annotations

import contextlib
import json
import os
import pwd
import shutil
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path

import psutil

from chaos.disk import newest
from chaos.group import SMALL
from chaos.intruder import Found, Plan
from chaos.programs import LAUNCH, Program, until
from chaos.report import ROOT, Outcome, report, reported

SHARED = (Path("/tmp"), Path("/var/tmp"), Path("/dev/shm"))
"""Where everybody may write."""

PROGRAMS = ("mount", "setpriv", "unshare", "useradd", "userdel")

START_SECONDS = 300.0
ENDLESS = 10**7
"""Learner steps that no part of a run reaches before it is killed."""

PRECIOUS = "for nobody else"


@dataclass
class Tally:
    """Over all tries. left: what was in shared folders after a kill, and once the next run had ended."""

    attempts: Found = field(default_factory=Found)
    open: list[str] = field(default_factory=list)
    ended: int = 0
    left_by_kills: int = 0
    left: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


@contextlib.contextmanager
def user(name: str) -> Iterator[pwd.struct_passwd]:
    """A user of the system, without a home folder."""
    subprocess.run(
        ["useradd", "--no-create-home", "--home-dir", f"/tmp/{name}", "--shell", "/bin/sh", name], check=True
    )
    try:
        yield pwd.getpwnam(name)
    finally:
        subprocess.run(["userdel", name], check=True, capture_output=True)


def mount(*arguments: object) -> None:
    subprocess.run(["mount", *map(str, arguments)], check=True)


def cover(paths: list[Path], scratch: Path) -> None:
    """Put new folders over the shared ones, and over closed ones above `paths`, so that everybody gets to those."""
    inside: dict[Path, list[Path]] = {place: [] for place in SHARED}
    for path in paths:
        way = (*reversed(path.parents), path)
        top = next((place for place in way if place in SHARED or not place.stat().st_mode & stat.S_IXOTH), None)
        if top is not None and not any(path.is_relative_to(other) for other in inside.get(top, ())):
            inside.setdefault(top, []).append(path)
    kept: dict[Path, Path] = {}
    for path in (path for found in inside.values() for path in found):
        kept[path] = scratch / str(len(kept))
        kept[path].mkdir()
        mount("--bind", path, kept[path])
    for top, found in sorted(
        inside.items(), key=lambda item: scratch.is_relative_to(item[0])
    ):  # where scratch is: last
        held = {path: os.open(kept[path], os.O_PATH) for path in found}
        mount("-t", "tmpfs", "-o", f"mode={'1777' if top in SHARED else '755'}", "tmpfs", top)
        for path, handle in held.items():
            path.mkdir(parents=True, exist_ok=True)
            mount("--bind", f"/proc/{os.getpid()}/fd/{handle}", path)
            os.close(handle)


def as_user(who: pwd.struct_passwd, *, umask: int = 0o022) -> list[str]:
    """A command that runs the one behind it as `who`."""
    shell = ["sh", "-c", f'umask {umask:o}; exec "$0" "$@"']
    return ["setpriv", f"--reuid={who.pw_uid}", f"--regid={who.pw_gid}", "--clear-groups", *shell]


def home_of(who: pwd.struct_passwd) -> Path:
    """Made if it is not there; nobody else can enter it."""
    home = Path(who.pw_dir)
    if not home.exists():
        home.mkdir(mode=0o700)
        os.chown(home, who.pw_uid, who.pw_gid)
    return home


def plant(owner: pwd.struct_passwd, other: pwd.struct_passwd) -> None:
    """What `other` puts into places that a program of `owner` might use, before that starts."""
    precious = home_of(owner) / "precious"
    script = f"""
mkdir -p /tmp/ray /tmp/tpu_logs /tmp/muzero-planted1 && chmod 0777 /tmp/ray /tmp/tpu_logs
chmod 0700 /tmp/muzero-planted1 && echo {socket.gethostname()} > /tmp/muzero-planted1/owner
echo 127.0.0.1:9 > /tmp/ray/ray_current_cluster
ln -sfn {precious} /tmp/ray/session_latest; ln -sfn {precious} /tmp/muzero-planted1/r
ln -sfn {precious} /tmp/wandb; ln -sfn {precious} /tmp/muzero-planted2; ln -sfn {precious} /tmp/ray/session_1
"""
    subprocess.run([*as_user(other), "sh", "-c", script], check=True)


def owned(owner: pwd.struct_passwd) -> list[Path]:
    """What is `owner`'s in shared folders, also in what others made there, but for the home folder."""
    found: list[Path] = []
    folders = [*SHARED]
    while folders:
        for path in folders.pop().iterdir():
            status = path.lstat()
            if status.st_uid == owner.pw_uid:
                found += [path] if path != Path(owner.pw_dir) else []
            elif stat.S_ISDIR(status.st_mode):
                folders.append(path)
    return found


def plan_of(program: Program, owner: pwd.struct_passwd) -> Plan:
    """All that there is of a running program."""
    plan = Plan(link=str(home_of(owner) / "precious"))
    for top in (*owned(owner), home_of(owner)):
        below = [top, *top.rglob("*")]
        plan.paths += map(str, below)
        plan.sockets += [str(path) for path in below if path.is_socket()]
    for process in program.left():
        with contextlib.suppress(psutil.Error):  # ended since
            plan.processes.append(process.pid)
            listening = [c.laddr for c in process.net_connections(kind="inet") if c.status == psutil.CONN_LISTEN]
            if process.name() == "gcs_server":
                plan.gcs += [f"127.0.0.1:{address.port}" for address in listening]
            if process.name().startswith("ray::RuntimeEnv"):
                plan.http += [f"http://{address.ip}:{address.port}/get_or_create_runtime_env" for address in listening]
    return plan


def attack(plan: Plan, other: pwd.struct_passwd, tally: Tally) -> None:
    """As `other`."""
    done = subprocess.run(
        [*as_user(other), sys.executable, "-m", "chaos.intruder"],
        input=json.dumps(asdict(plan)),
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        cwd=ROOT,
        env={"PATH": os.environ["PATH"], "HOME": other.pw_dir, "PYTHONDONTWRITEBYTECODE": "1"},
    )
    found = Found(**json.loads(done.stdout))
    tally.attempts.tried += found.tried
    tally.attempts.refused += found.refused
    tally.attempts.worked += found.worked


class Run:
    """A run of `owner`, who has umask 0: nothing but the folders that it is in keeps it from others."""

    def __init__(self, owner: pwd.struct_passwd, other: pwd.struct_passwd, number: int, tally: Tally) -> None:
        self._owner, self._other, self._tally = owner, other, tally
        self._home = home_of(owner)
        self._log = self._home / f"log-{number}"
        self.folder = self._home / "runs" / f"run-{number}"

    def start(self, *arguments: object) -> Program:
        unset = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
        return Program(
            self._log,
            *arguments,
            command=[*as_user(self._owner, umask=0), sys.executable, str(LAUNCH)],
            environment=unset | {"HOME": str(self._home), "PYTHONDONTWRITEBYTECODE": "1"},
        )

    def wait_for(self, program: Program, step: int) -> None:
        """Until a checkpoint later than `step` is there."""
        if not until(lambda: newest(self.folder) > step or program.code is not None, START_SECONDS, pause=0.2):
            raise RuntimeError(f"no checkpoint after {step}: {program.printed()[-500:]}")
        if program.code is not None:
            raise RuntimeError(f"the run ended with {program.code}: {program.printed()[-500:]}")

    def be_attacked(self, program: Program) -> None:
        self._tally.open += [
            f"{path} has mode {stat.S_IMODE(path.lstat().st_mode):04o}"
            for path in owned(self._owner)
            if path.lstat().st_mode & 0o077
        ]
        attack(plan_of(program, self._owner), self._other, self._tally)

    def trained_under_attack(self) -> None:
        """Until it is killed. A worker that starts after the attack uses what was attacked."""
        where = ("--runs-dir", self.folder.parent, "--run.name", self.folder.name, "--run.wandb", "offline")
        small = [ENDLESS if before == "--iterations" else value for before, value in zip(("", *SMALL), SMALL)]  # noqa: B905
        with self.start("train", "cartpole", *small, *where) as program:
            self.wait_for(program, -1)
            self.be_attacked(program)
            victim = next(process for process in program.left() if "SelfPlay" in process.name())
            victim.kill()
            if not until(lambda: "replacing it" in program.printed(), START_SECONDS):
                raise RuntimeError("the killed worker was not replaced")
            self.wait_for(program, newest(self.folder))
            program.kill_group()
            until(lambda: not program.left(), START_SECONDS, pause=0.2)
        self._tally.left_by_kills += len(owned(self._owner))

    def resumed_under_attack(self) -> None:
        """From its start on, to its end."""
        step = newest(self.folder)
        with self.start("resume", self.folder, "--iterations", step + 100) as program:
            if until(lambda: any(top.rglob("raylet") for top in owned(self._owner)), START_SECONDS):
                self.be_attacked(program)
            code = program.wait(START_SECONDS)
            self._tally.ended += code == 0
            self._tally.notes += (
                [f"it ended with {code}: {program.error() or program.printed()[-300:]}"] if code else []
            )
        self._tally.left += map(str, owned(self._owner))


def main(tries: int, folder: Path) -> Iterator[Outcome]:
    """In the namespace."""
    cover([ROOT, Path(sys.base_prefix), Path(sys.prefix), Path(sys.executable).resolve().parent], folder)
    tally = Tally()
    with user(f"chaos{os.getpid()}a") as owner, user(f"chaos{os.getpid()}b") as other:
        precious = home_of(owner) / "precious"
        subprocess.run([*as_user(owner, umask=0o077), "mkdir", str(precious)], check=True)
        (precious / "file").write_text(PRECIOUS)
        for number in range(tries):
            plant(owner, other)
            run = Run(owner, other, number, tally)
            try:
                run.trained_under_attack()
                run.resumed_under_attack()
            except RuntimeError as error:  # what was tried until then still counts
                tally.notes.append(str(error))
        kept = [path.name for path in precious.iterdir()] == ["file"] and (precious / "file").read_text() == PRECIOUS
        mode = stat.S_IMODE(precious.stat().st_mode)
    tally.notes += [] if kept and mode == 0o700 else [f"the folder that links led to has mode {mode:04o}; kept: {kept}"]
    attempts = tally.attempts
    yield Outcome(
        "another user of the machine",
        "nothing of a run is listed, read, replaced, planted, connected to; it goes on, resumes and ends with 0",
        tries,
        len(attempts.worked) + len(tally.open),
        attempts.refused == attempts.tried > 0 and not tally.open and not tally.notes and tally.ended == tries,
        {"attempts": attempts.tried, "refused": attempts.refused, "ended with 0": tally.ended},
        [*tally.notes, *tally.open[:5], *attempts.worked[:10]],
    )
    yield Outcome(
        "kill -9, and what is left in temporary folders",
        "the next run of that user removes it, and leaves nothing itself",
        tries,
        len(tally.left),
        not tally.left,
        {"left by kills": tally.left_by_kills, "left after the next run": len(tally.left)},
        tally.left[:5],
    )


def users(tries: int, folder: Path) -> Iterator[Outcome]:
    """Each: a run that is attacked, killed and resumed."""
    missing = [name for name in PROGRAMS if shutil.which(name) is None]
    if missing or os.geteuid():
        raise RuntimeError(f"needs root, to make two users{'; not found: ' if missing else ''}{', '.join(missing)}")
    yield from reported(["unshare", "--mount", sys.executable, "-m", "chaos.users", str(tries), str(folder)])


if __name__ == "__main__":
    report(main(int(sys.argv[1]), Path(sys.argv[2])))
