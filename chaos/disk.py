"""A disk that is full, read-only or gone, below one part of a run's folder; then it comes back.

Real file systems: small ones in memory, mounted in a mount namespace of its own (Linux; root, or user namespaces).
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from chaos.programs import Program, until
from chaos.report import Outcome, report, reported
from muzero_ray.config.schema import Config
from muzero_ray.control.probe import probe
from muzero_ray.control.serial import SerialRunner
from muzero_ray.errors import CheckpointError
from muzero_ray.runs.checkpoint import list_checkpoints, load_checkpoint
from muzero_ray.runs.output import RunOutput

PARTS = ("", "checkpoints", "replay", "wandb", "videos")
"""Folders of a run, its own first, each on a disk of its own."""

SIZE = 64 << 20

SECONDS = 8.0
"""How long a run is watched after the fault: a dozen checkpoints."""

ROOM = 4 * 4096
"""Left free where small files shall fit, and larger ones not."""


@dataclass(frozen=True)
class Place:
    """What cannot be written. part: of PARTS. settings: of config.yaml, by pattern, that have it written often.

    early: the fault comes before the program starts. finish: the run ends, with its last evaluation.
    """

    part: str
    settings: tuple[tuple[str, str], ...] = ()
    early: bool = False
    finish: bool = False
    room: int = 0
    faults: tuple[str, ...] = ("full", "read-only", "gone")


PLACES = {
    "metrics": Place(""),
    "scores": Place("", (("log_steps: .*", "log_steps: 1000000"), ("interval_steps: .*", "interval_steps: 10"))),
    "config": Place("", early=True, faults=("full", "read-only")),
    "checkpoints": Place("checkpoints"),
    "replay chunks": Place("replay"),
    "replay snapshot": Place("replay", room=ROOM, faults=("full",)),
    "W&B folder": Place("wandb", (("wandb: disabled", "wandb: offline"),)),
    "video": Place("videos", (("video: false", "video: true"),), early=True, finish=True),
}


class Disks:
    """The file systems of a run in `folder`; what is in each stays in `backing` while it is not mounted."""

    def __init__(self, folder: Path, backing: Path, content: Path) -> None:
        self._folder, self._backing = folder, backing
        for part in PARTS:
            disk = self._disk(part)
            disk.mkdir(parents=True)
            _mount("-t", "tmpfs", "-o", f"size={SIZE}", "tmpfs", disk)
            source = content / part
            for entry in sorted(source.iterdir()) if source.is_dir() else ():
                if entry.is_dir() and part:
                    shutil.copytree(entry, disk / entry.name)
                elif entry.is_file():
                    shutil.copy(entry, disk / entry.name)
            if part:
                (self._disk("") / part).mkdir()
        folder.mkdir()
        self._attach()

    def _disk(self, part: str) -> Path:
        return self._backing / (part or "run")

    def _attach(self, parts: tuple[str, ...] = PARTS) -> None:
        for part in parts:
            _mount("--bind", self._disk(part), self._folder / part)

    def harm(self, part: str, fault: str, room: int) -> None:
        disk = self._disk(part)
        if fault == "full":
            free = os.statvfs(disk).f_bavail * os.statvfs(disk).f_frsize - room
            with (disk / "filler").open("wb") as file:
                os.posix_fallocate(file.fileno(), 0, free)
        else:
            subprocess.run(["umount", "--lazy", self._folder / part], check=True)
        if fault == "read-only":  # what is open already is written to as before: a mount in use cannot be changed
            self._attach((part,))
            _mount("-o", "remount,ro,bind", self._folder / part)
            self._attach(() if part else PARTS[1:])

    def heal(self, part: str, fault: str) -> None:
        if fault == "full":
            (self._disk(part) / "filler").unlink()
        elif fault == "read-only":
            _mount("-o", "remount,rw,bind", self._folder / part)
        else:
            self._attach((part,) if part else PARTS)

    def remove(self) -> None:
        subprocess.run(["umount", "--lazy", "--recursive", self._folder], check=True)
        for part in PARTS:
            subprocess.run(["umount", "--lazy", self._disk(part)], check=True)


def _mount(*arguments: object) -> None:
    subprocess.run(["mount", *map(str, arguments)], check=True)


def make_run(folder: Path) -> None:
    """A short run to go on with."""
    data = {
        "run": {"learner_steps": 100, "log_steps": 50, "checkpoint_steps": 100, "wandb": "disabled", "serial": True},
        "env": {"id": "CartPole-v1", "max_moves": 30},
        "network": {"hidden": 16, "layers": (16,), "head_layers": (16,)},
        "search": {"simulations": 2},
        "replay": {"min_size": 64, "samples_per_insert": 8.0, "segment_length": 30},
        "learner": {"batch_size": 16, "unroll_steps": 3, "td_steps": 4},
        "actors": {"count": 1, "envs_per_actor": 2, "rollout_steps": 40},
        "evaluation": {"interval_steps": 1_000_000, "episodes": 1, "final_episodes": 1, "video": False},
    }
    config = Config.model_validate(data)
    with contextlib.redirect_stdout(io.StringIO()), RunOutput.create(config, folder) as output:
        SerialRunner(config, probe(config), output, None).run()


def newest(folder: Path) -> int:
    """Learner step of the newest visible checkpoint; -1 if there is none."""
    return max((int(path.name.split(".")[0]) for path in list_checkpoints(folder / "checkpoints")), default=-1)


def attempt(place: Place, fault: str, folder: Path, content: Path) -> tuple[str, list[str]]:
    """One fault at one place. Returns how the run took it, and what was wrong with that."""
    run = folder / "run"
    disks = Disks(run, folder / "disks", content)
    path = run / "config.yaml"
    text = path.read_text()
    for pattern, setting in place.settings:
        text = re.sub(pattern, setting, text)
    path.write_text(text)
    before = newest(run)
    harm: Callable[[], None] = lambda: disks.harm(place.part, fault, place.room)  # noqa: E731
    problems: list[str] = []
    if place.early:
        harm()
    with Program(folder / "log", "resume", run, "--iterations", before + 50 if place.finish else 10**7) as program:
        if not place.early:
            if not until(lambda: newest(run) > before or program.code is not None, 60) or program.code is not None:
                problems.append(f"it did not train before the fault: {program.printed()[-300:]}")
            harm()
        code = program.wait(60 if place.early else SECONDS)
        reached = newest(run)
        if code is None:
            took = "went on"
            time.sleep(0.2)
            if program.stop(60) != 130:
                problems.append(f"it went on, but could not be stopped: {program.error() or program.code}")
        elif code == 0:
            took = "went on"
        else:
            took = f"ended with {code}: {program.error()[:200]}"
            if not program.error().startswith("error: "):
                problems.append(f"no clear reason: {program.error()[:200] or program.printed()[-200:]}")
    disks.heal(place.part, fault)
    try:
        step = load_checkpoint(run).step
        problems += [f"step {step} loads, {reached} was there"] if step < reached and fault != "gone" else []
    except CheckpointError as error:
        step = before
        problems.append(f"no checkpoint loads: {error}")
    with Program(folder / "log", "resume", run, "--iterations", step + 50) as program:
        if program.wait(90) != 0:
            problems.append(f"does not go on when the disk is back: {program.error() or program.printed()[-200:]}")
    disks.remove()
    return took, problems


def main(kinds: int, folder: Path) -> Iterator[Outcome]:
    """In the namespace: one row per place."""
    make_run(folder / "content")
    for name, place in PLACES.items():
        notes: list[str] = []
        ended = bad = 0
        faults = place.faults[:kinds]
        for fault in faults:
            case = folder / f"{name}-{fault}".replace(" ", "-")
            case.mkdir()
            took, problems = attempt(place, fault, case, folder / "content")
            ended += took != "went on"
            bad += bool(problems)
            notes += [f"{fault}: {took}; {problem}" for problem in problems]
        yield Outcome(
            f"disk {', '.join(faults)}: {name}",
            "goes on, or ends with a clear reason; last good checkpoint loads; works again when the disk is back",
            len(faults),
            bad,
            not bad,
            {"went on": len(faults) - ended, "ended": ended},
            notes,
        )


def disk(tries: int, folder: Path) -> Iterator[Outcome]:
    """The first `tries` of full, read-only and gone, at each place."""
    who = ["--mount"] if os.geteuid() == 0 else ["--user", "--map-root-user", "--mount"]
    command = ["unshare", *who, sys.executable, "-m", "chaos.disk", str(tries), str(folder)]
    yield from reported(command)


if __name__ == "__main__":
    report(main(int(sys.argv[1]), Path(sys.argv[2])))
