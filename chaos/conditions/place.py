"""Where a condition is tried: a folder, a small run, `launch.py` as a user starts it, and what is expected of it."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from chaos.programs import LAUNCH, Program, until
from chaos.report import ROOT

SECONDS = 240.0
"""After which a program counts as hanging. The slowest takes a tenth of it on an idle machine."""

OTHER_USER = 54321
"""Uid of somebody who has no account, as in containers."""

SMALL = (
    *("--run.wandb", "disabled", "--iterations", 60, "--run.checkpoint-steps", 20, "--run.log-steps", 20),
    *("--simulations", 2, "--max-moves", 30, "--network.head-layers", 16),
    *("--replay.min-size", 64, "--learner.batch-size", 16, "--learner.td-steps", 4),
    *("--learner.unroll-steps", 3, "--replay.segment-length", 30, "--actors", 1, "--actors.envs-per-actor", 2),
    *("--actors.rollout-steps", 40, "--evaluation.final-episodes", 2, "--evaluation.interval-steps", 10**6),
)
"""Options of a run that takes seconds."""

SMALL_MLP = ("--network.hidden", 16, "--network.layers", 16)
"""Options of its network."""

LONG = ("--iterations", 10**7, "--minutes", 30)
"""After SMALL: a run that ends only when it is stopped."""


class Condition(NamedTuple):
    """expected: the right answer, in words."""

    group: str
    name: str
    expected: str
    function: Callable[[Place], None]


CONDITIONS: list[Condition] = []


def condition(name: str, expected: str) -> Callable[[Callable[[Place], None]], Callable[[Place], None]]:
    """Decorator that adds a condition to the group which its module is named after."""

    def add(function: Callable[[Place], None]) -> Callable[[Place], None]:
        CONDITIONS.append(Condition(function.__module__.rpartition(".")[2], name, expected, function))
        return function

    return add


class Unexpected(Exception):
    """The program's answer was another than the expected one."""


class Unfit(Exception):
    """This machine cannot set the condition up."""


@dataclass(frozen=True)
class Ended:
    """How a program ended. code: None if it had to be killed."""

    code: int | None
    out: str
    err: str

    @property
    def said(self) -> str:
        return self.out + self.err


class Place:
    """A folder of one condition's own. trained: where the small finished run is, or will be when it is first asked for.

    `close` ends what was started here.
    """

    def __init__(self, folder: Path, trained: Path) -> None:
        self.folder = folder
        self._trained = trained
        self._programs: list[Program] = []
        self._undo: list[Callable[[], object]] = []

    def close(self) -> None:
        for program in self._programs:
            program.close()
        for undo in reversed(self._undo):
            undo()

    def afterwards(self, undo: Callable[[], object]) -> None:
        """Have `undo` called at the end."""
        self._undo.append(undo)

    # Runs.

    @property
    def run(self) -> Path:
        """Folder of the run that `train` makes here."""
        return self.folder / "runs" / "run"

    def trained(self) -> Path:
        """A copy of a small finished run, at `run`."""
        if not self._trained.exists():
            self.expect(
                self.launch(
                    *("train", "cartpole", *SMALL, *SMALL_MLP, "--serial"),
                    *("--runs-dir", self._trained, "--run.name", "run"),
                )
            )
        shutil.copytree(self._trained / "run", self.run)
        return self.run

    # Programs.

    def command(self, *arguments: object) -> list[str]:
        return [sys.executable, str(LAUNCH), *map(str, arguments)]

    def training(
        self, *options: object, network: Sequence[object] = SMALL_MLP, serial: bool = True, name: str = "run"
    ) -> list[str]:
        """The command of a small run at `run`; options come after, and win. network: options of its network."""
        where = (
            ["--runs-dir", self.folder / "runs", "--run.name", name] if name else ["--runs-dir", self.folder / "runs"]
        )
        return self.command("train", "cartpole", *SMALL, *network, *(["--serial"] if serial else []), *where, *options)

    def environment(self, **changes: str | None) -> dict[str, str]:
        """That of this process with `changes`; None takes a variable away."""
        wanted = {**os.environ, "OMP_NUM_THREADS": "1", "RAY_USAGE_STATS_ENABLED": "0"}
        wanted["PYTHONPATH"] = str(ROOT)
        wanted.update({name: value for name, value in changes.items() if value is not None})
        return {name: value for name, value in wanted.items() if changes.get(name, "") is not None}

    def launch(self, *arguments: object, **how: Any) -> Ended:
        """`launch.py` with these arguments, to its end."""
        return self.call(self.command(*arguments), **how)

    def train(
        self,
        *options: object,
        network: Sequence[object] = SMALL_MLP,
        serial: bool = True,
        name: str = "run",
        **how: Any,
    ) -> Ended:
        """`training` to its end."""
        return self.call(self.training(*options, network=network, serial=serial, name=name), **how)

    def call(
        self,
        command: Sequence[str],
        *,
        environment: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        seconds: float = SECONDS,
        stdin: int | None = subprocess.DEVNULL,
    ) -> Ended:
        """A command to its end; one that hangs is killed with all that it started."""
        process = subprocess.Popen(
            command,
            stdin=stdin,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            env=environment or self.environment(),
            cwd=cwd or self.folder,
            start_new_session=True,
        )
        try:
            out, err = process.communicate(timeout=seconds)
            return Ended(process.returncode, out, err)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            out, err = process.communicate()
            return Ended(None, out, err)

    def shell(self, script: str, **how: Any) -> Ended:
        """A line as it is typed; `$LAUNCH` is `python launch.py`, `$TRAIN` a small run at `run`."""
        environment = how.pop("environment", None) or self.environment()
        environment |= {"LAUNCH": shlex.join(self.command()), "TRAIN": shlex.join(self.training())}
        return self.call(["bash", "-c", script], environment=environment, **how)

    def started(self, *command: str, environment: Mapping[str, str] | None = None) -> Program:
        """A command that goes on while the condition is set up."""
        log = self.folder / f"log-{len(self._programs)}"
        program = Program(log, command=command, environment=environment or self.environment())
        self._programs.append(program)
        return program

    def as_another_user(self, command: Sequence[str]) -> list[str]:
        """The command run by somebody else, who may read everything and write nothing that is not theirs."""
        if os.geteuid() != 0:
            raise Unfit("another user can be had by root only")
        self.folder.parent.chmod(0o755)
        user = f"--reuid={OTHER_USER}", f"--regid={OTHER_USER}", "--clear-groups"
        # The interpreter may be in a folder that only its owner can enter.
        reads = "--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search"
        return ["setpriv", *user, *reads, *command]

    # Answers.

    def expect(self, ended: Ended, *says: str, code: int | Sequence[int] = 0, never: str | None = None) -> Ended:
        """Unexpected, unless it ended by itself with `code`, showed no traceback, and said each pattern of `says`."""
        codes = [code] if isinstance(code, int) else list(code)
        problems = []
        if ended.code is None:
            problems.append("it hung")
        elif ended.code not in codes:
            problems.append(f"exit code {ended.code}, not {' or '.join(map(str, codes))}")
        if "Traceback (most recent call last)" in ended.said:
            problems.append("a traceback")
        problems += [f"it does not say {pattern!r}" for pattern in says if not search(pattern, ended.said)]
        if never is not None and search(never, ended.said):
            problems.append(f"it says {never!r}")
        if problems:
            raise Unexpected(f"{', '.join(problems)}; it said: {shortened(ended.said)}")
        return ended

    def stops(self, program: Program, *says: str, code: int = 130) -> None:
        """The program ends by itself, as `expect` says."""
        ended = program.wait(SECONDS)
        self.expect(Ended(ended, program.printed(), ""), *says, code=code)

    def waits_for(self, what: Callable[[], bool], program: Program, name: str) -> None:
        """Until that is so, while the program runs."""
        if not until(lambda: what() or program.code is not None, SECONDS) or not what():
            raise Unexpected(f"{name} did not come; exit code {program.code}: {shortened(program.printed())}")

    def has_checkpoint(self, run: Path | None = None) -> bool:
        folder = (run or self.run) / "checkpoints"
        return folder.is_dir() and any(path.name.isdigit() for path in folder.iterdir())

    def goes_on(self, run: Path | None = None) -> None:
        """Nothing is lost: the run's newest weights play, and it can be resumed."""
        run = run or self.run
        self.expect(self.launch("evaluate", run, "--episodes", 1), "return_mean=")
        newest = max(int(path.name) for path in (run / "checkpoints").iterdir() if path.name.isdigit())
        more = ("--iterations", newest + 20, "--minutes", 60)
        self.expect(self.launch("resume", run, *more), f"resuming at learner step {newest};")

    def holds(self, what: bool, otherwise: str) -> None:
        """Unexpected if not."""
        if not what:
            raise Unexpected(otherwise)


def search(pattern: str, text: str) -> bool:
    return re.search(pattern, text, re.IGNORECASE | re.DOTALL) is not None


def shortened(text: str) -> str:
    """The end of it, on one line."""
    line = " ".join(text.split()).replace("|", "/")
    return line[-300:] or "nothing"
