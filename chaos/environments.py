"""Environments that raise, hang, exit, crash, leak or return rubbish, and a CartPole that does it now and then."""

from __future__ import annotations

import re
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from chaos import broken_environments as broken
from chaos.group import SCORE, TRAINED
from chaos.programs import Program
from chaos.report import Outcome

RAISED = ("step raises", "sys.exit in step", *broken.WRONG, "reset raises")
"""Found where it happens, and handled there, by what both runners have in common: tried with the serial one."""

DEADLY = ("os._exit in step", "segfault in step", "step hangs", "reset hangs")
"""Found by the supervisor: a process is replaced."""

LEAK, SLOW_LEAK = "leaks fast", "leaks slowly"
MEGABYTES = {LEAK: 20.0, SLOW_LEAK: 0.5}
"""A step."""
MEMORY_LIMIT = {LEAK: 0.6, SLOW_LEAK: 0.7}
"""GB, instead of a quarter of the machine."""

FAULTS = (*RAISED, LEAK, SLOW_LEAK, *DEADLY)

TIMEOUT = 20.0
"""Seconds after which a call counts as hung, instead of the program's 300."""

SHORT = f"""
import sys
import muzero_ray.actors.workers
muzero_ray.actors.workers.CALL_TIMEOUT = {TIMEOUT}
from muzero_ray import launch
if __name__ == "__main__":
    sys.exit(launch.main())
"""
"""`launch.py` with that."""

OPTIONS = (
    *("train", "cartpole", "--run.wandb", "disabled", "--env.id", "chaos_envs:Fault-v0", "--iterations", 600),
    *("--simulations", 3, "--network.hidden", 16, "--network.layers", 16, "--network.head-layers", 16),
    *("--replay.min-size", 64, "--learner.batch-size", 32, "--learner.td-steps", 5, "--actors.count", 1),
    *("--actors.envs-per-actor", 2, "--actors.rollout-steps", 40, "--replay.samples-per-insert", 4),
    *("--evaluation.interval-steps", 10**6, "--evaluation.final-episodes", 2, "--minutes", 20),
)

PLACE = re.compile(r"environment chaos_envs:Fault-v0 \(seed (\d+), step (\d+)\)")

REPLACED = re.compile(r"replaced$|replacing it$", re.MULTILINE)

IN_A_ROW = re.compile(r"fault number (\d+) in a row$")

CRASH = re.compile(r"crashed in (reset|step); replaced")


@dataclass(frozen=True)
class Seen:
    """What became of a run. said: its last words. replaced: environments and processes that were. problem: or None."""

    code: int | None
    said: str
    replaced: int
    problem: str | None


def judge(fault: str, code: int | None, said: str, printed: str) -> Seen:
    """Exit code 3 and a message with id, seed and step, after replacements; a slow leak ends no run."""
    replaced = len(REPLACED.findall(printed))
    if match := IN_A_ROW.search(said):  # those that came before it in one call are not told apart
        replaced += int(match[1]) - 1
    wanted = 0 if fault == SLOW_LEAK else 3
    place = PLACE.search(printed if fault == SLOW_LEAK else said)
    problem = None
    if code != wanted:
        problem = f"ended with {code}, not {wanted}: {said[:300]}"
    elif place is None:
        problem = f"environment, seed and step are not named: {said[:300]}"
    elif fault in broken.ENDS or fault in broken.WRONG:
        problem = None if int(place[2]) == 3 else f"step {place[2]} is named, it was 3: {said[:300]}"
    if problem is None and not replaced:
        problem = "nothing was ever replaced"
    return Seen(code, said, replaced, problem)


def run_with(fault: str, folder: Path, packages: Path) -> Seen:
    """A whole run of the program with an environment that has it."""
    options: list[object] = [*OPTIONS, "--runs-dir", folder, "--run.name", "run", "--env.kwargs", f"fault={fault}"]
    if fault in RAISED:
        options.append("--serial")
    if fault in MEGABYTES:
        options += [f"mb={MEGABYTES[fault]}", "--actors.memory-limit", MEMORY_LIMIT[fault]]
    script = folder / "short.py"
    script.write_text(SHORT)
    with Program(folder / "log", *options, command=(sys.executable, str(script)), paths=[packages]) as program:
        code = program.wait(600)
        return judge(fault, code, program.error(), program.printed())


def install(folder: Path) -> Path:
    """The package of broken environments below `folder`; returns what goes on PYTHONPATH."""
    package = folder / "packages" / "chaos_envs"
    package.mkdir(parents=True)
    shutil.copy(broken.__file__, package / "__init__.py")
    return package.parent


def faults(tries: int, folder: Path, packages: Path) -> Outcome:
    """The first `tries` of them, spread over the kinds."""
    chosen = [FAULTS[index * len(FAULTS) // tries] for index in range(min(tries, len(FAULTS)))]
    notes: list[str] = []
    replaced = 0
    for fault in chosen:
        place = folder / fault.replace(" ", "-")
        place.mkdir()
        seen = run_with(fault, place, packages)
        replaced += seen.replaced
        notes += [f"{fault}: {seen.problem}"] if seen.problem else []
    return Outcome(
        f"environment {', '.join(chosen)}",
        "id, seed and step reported; replaced; the 6th in a row ends the run with exit code 3 (a slow leak: never)",
        len(chosen),
        len(notes),
        not notes,
        {"replaced": replaced},
        notes,
    )


def crashing(folder: Path, packages: Path) -> Outcome:
    """The preset `cartpole`, with an environment that crashes in every fifth game or so."""
    options = ("--env.id", "chaos_envs:Crashing-v0", "--run.wandb", "disabled", "--minutes", 60)
    with Program(folder / "log", "train", "cartpole", *options, "--runs-dir", folder, paths=[packages]) as program:
        code = program.wait(3_600)
        printed, said = program.printed(), program.error()
    crashes = [match[1] for match in CRASH.finditer(printed)]
    match = TRAINED.search(printed)
    score = float(match[1]) if match else float("nan")
    notes = [] if code == 0 else [f"ended with {code}: {said[:300]}"]
    return Outcome(
        "CartPole that crashes with p=0.0005 a step and 0.005 a reset",
        f"still reaches {SCORE:g}",
        1,
        0,
        code == 0 and score >= SCORE and bool(crashes),
        {"score": score, "crashes in steps": crashes.count("step"), "in resets": crashes.count("reset")},
        notes,
    )


def environments(tries: int, folder: Path) -> Iterator[Outcome]:
    """`tries` faults; the crashing CartPole if those are all."""
    packages = install(folder)
    yield faults(tries, folder, packages)
    if tries >= len(FAULTS):
        yield crashing(folder, packages)
