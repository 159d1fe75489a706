"""kill -9 of a whole run, again and again, and `launch.py resume` after each: what a pre-empted machine does to it."""

from __future__ import annotations

import random
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from chaos.programs import Program, until
from chaos.report import Outcome, largest
from muzero_ray.errors import CheckpointError
from muzero_ray.runs.checkpoint import list_checkpoints, load_checkpoint

SPAN = 15.0
"""Seconds from the start of a part in which it is killed at random: it starts within the first half."""

ORPHAN_SECONDS = 15.0

SCORE = 475.0
"""Where gymnasium calls CartPole solved."""

FULL = 10
"""From so many tries on the run is that of the preset, and has to learn too."""

PRESET = ("--run.checkpoint-steps", 100, "--evaluation.final-episodes", 20, "--minutes", 60)
SMALL = (
    *("--iterations", 1_000, "--run.checkpoint-steps", 50, "--simulations", 4, "--max-moves", 100),
    *("--replay.min-size", 128, "--learner.batch-size", 32, "--actors", 1, "--evaluation.final-episodes", 2),
)

RESUMING = re.compile(r"resuming at learner step (\d+)")
TRAINED = re.compile(r"trained: return_mean=([-\d.]+)")


@dataclass
class Tally:
    """Over all kills. torn: kills that left a half written checkpoint, which nobody may see."""

    kills: int = 0
    in_write: int = 0
    torn: int = 0
    resumed: int = 0
    damaged: int = 0
    orphans: int = 0
    orphan_seconds: list[float] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def half_written(run: Path) -> set[str]:
    """Names of checkpoints that are being written, or were when the program was killed."""
    root = run / "checkpoints"
    return {path.name for path in root.iterdir() if re.match(r"\.tmp-\d", path.name)} if root.is_dir() else set()


def wait_for_write(program: Program, run: Path, rng: random.Random) -> None:
    """Until the program is inside one of its next writes, or has ended."""
    for _ in range(rng.randint(1, 3)):
        before = half_written(run)
        while not half_written(run) - before:
            if program.code is not None:
                return
            time.sleep(0.0002)
    time.sleep(rng.uniform(0.0, 0.001))


def strike(program: Program, run: Path, in_write: bool, rng: random.Random, tally: Tally) -> None:
    """Kill it at its moment, and look at what is left."""
    before = half_written(run)
    if in_write:
        wait_for_write(program, run, rng)
    else:
        program.wait(rng.uniform(0.0, SPAN))
    if program.code is not None:
        tally.notes.append(f"it had ended with {program.code}: {program.error()[:200]}")
        return
    program.kill_group()
    at = time.monotonic()
    tally.kills += 1
    tally.in_write += in_write
    tally.torn += bool(half_written(run) - before)
    if until(lambda: not program.left(), ORPHAN_SECONDS):
        tally.orphan_seconds.append(time.monotonic() - at)
    else:
        left = program.left()
        tally.orphans += len(left)
        tally.notes.append(f"left after {ORPHAN_SECONDS:g} s: {', '.join(process.name() for process in left)}")
    for path in list_checkpoints(run / "checkpoints"):
        try:
            load_checkpoint(path)
        except CheckpointError as error:
            tally.damaged += 1
            tally.notes.append(f"visible, and damaged: {error}")


def resumes(program: Program, expected: int, tally: Tally) -> bool:
    """Whether it goes on by itself, from the newest checkpoint there was."""
    until(lambda: bool(RESUMING.search(program.printed())) or program.code is not None, 60)
    match = RESUMING.search(program.printed())
    if match is None or int(match[1]) != expected:
        tally.notes.append(f"resumed at {match and match[1]}, not {expected}: {program.error()[:200]}")
        return False
    return True


def kill_group(tries: int, folder: Path) -> Iterator[Outcome]:
    """A third of the kills inside a checkpoint's write. The last part goes to the end."""
    rng, tally, run, log = random.Random(8), Tally(), folder / "run", folder / "log"
    moments = [index % 3 == 1 for index in range(tries)]
    options = PRESET if tries >= FULL else SMALL
    program = Program(
        log, "train", "cartpole", "--runs-dir", folder, "--run.name", "run", "--run.wandb", "disabled", *options
    )
    try:
        until(lambda: bool(list_checkpoints(run / "checkpoints")) or program.code is not None, 120)
        if program.code is not None:
            raise RuntimeError(f"it does not start: {program.printed()[-500:]}")
        for in_write in moments:
            strike(program, run, in_write, rng, tally)
            expected = load_checkpoint(run).step
            program.close()
            program = Program(log, "resume", run)
            tally.resumed += resumes(program, expected, tally)
        code = program.wait(1_200)
        match = TRAINED.search(program.printed())
    finally:
        program.close()
    score = float(match[1]) if match else float("nan")
    if code != 0:
        tally.notes.append(f"the last part ended with {code}: {program.error()[:200]}")
    learned = score >= SCORE if tries >= FULL else match is not None
    yield Outcome(
        "kill -9 of the process group",
        f"all resume unaided, from the newest checkpoint; none of those damaged; no process left after "
        f"{ORPHAN_SECONDS:g} s; CartPole still reaches {SCORE:g}",
        tally.kills,
        tally.damaged + tally.orphans + tally.kills - tally.resumed,
        learned and tally.resumed == tally.kills == tries and tally.damaged + tally.orphans == 0,
        {
            "resumed": tally.resumed,
            "inside a write": tally.in_write,
            "checkpoints half written": tally.torn,
            "damaged": tally.damaged,
            "orphans": tally.orphans,
            "last process gone s (max)": largest(tally.orphan_seconds),
            "score": score,
        },
        tally.notes,
    )
