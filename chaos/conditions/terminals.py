"""Terminals that close, block or cannot show a letter, readers that leave, and signals."""

from __future__ import annotations

import os
import pty
import re
import signal
import subprocess
import time

from chaos.conditions.place import LONG, SECONDS, Ended, Place, condition
from chaos.programs import until


@condition("the reader of stdout leaves (`| head -1`)", "the run trains to its end; exit code 0")
def reader_leaves(place: Place) -> None:
    place.expect(place.shell("$TRAIN | head -1; exit ${PIPESTATUS[0]}"))
    place.goes_on()


@condition("stdout is /dev/full", "the run trains to its end; exit code 0")
def full_device(place: Place) -> None:
    place.expect(place.shell("exec $TRAIN > /dev/full"))
    place.goes_on()


@condition("stdout is closed (`>&-`)", "the run trains to its end; exit code 0")
def closed_stdout(place: Place) -> None:
    place.expect(place.shell("exec $TRAIN >&-"))
    place.goes_on()


@condition("stdout and stderr are closed", "the run trains to its end; exit code 0")
def closed_outputs(place: Place) -> None:
    place.expect(place.shell("exec $TRAIN >&- 2>&-"))
    place.goes_on()


@condition("ASCII output and a path with an umlaut", "exit code 0; the letters that cannot be shown are escaped")
def ascii_only(place: Place) -> None:
    environment = place.environment(PYTHONIOENCODING="ascii", LC_ALL="C", PYTHONUTF8="0")
    command = place.launch(*place.training("--runs-dir", place.folder / "r\u00fcns")[2:], environment=environment)
    place.expect(command, "trained: ")


@condition("a reader that never reads", "the run trains to its end; exit code 0")
def blocked_pipe(place: Place) -> None:
    reading, writing = os.pipe()
    place.afterwards(lambda: os.close(reading))
    while True:  # fill the pipe, so that the first line blocks
        os.set_blocking(writing, False)
        try:
            os.write(writing, b"x" * 4096)
        except BlockingIOError:
            break
    os.set_blocking(writing, True)
    process = subprocess.Popen(
        place.training(), stdout=writing, stderr=subprocess.STDOUT, env=place.environment(), start_new_session=True
    )
    os.close(writing)
    place.afterwards(process.kill)
    until(lambda: process.poll() is not None, SECONDS)
    place.expect(Ended(process.poll(), "", ""))
    place.goes_on()


@condition("a terminal one column wide, TERM=dumb", "exit code 0")
def narrow(place: Place) -> None:
    place.expect(place.train(environment=place.environment(TERM="dumb", COLUMNS="1", LINES="1")))


@condition("a terminal that is closed (SIGHUP)", "a checkpoint is written; exit code 130")
def hangup(place: Place) -> None:
    stopped_by(place, signal.SIGHUP)


@condition("SIGTERM", "a checkpoint is written; exit code 130; the resume command is named")
def terminated(place: Place) -> None:
    stopped_by(place, signal.SIGTERM)


@condition("SIGUSR1, as Slurm sends it before a time limit", "a checkpoint is written; exit code 130")
def user_signal(place: Place) -> None:
    stopped_by(place, signal.SIGUSR1)


def stopped_by(place: Place, number: signal.Signals) -> None:
    program = place.started(*place.training(*LONG))
    place.waits_for(place.has_checkpoint, program, "a checkpoint")
    os.kill(program.pid, number)
    place.stops(program, "checkpoint", "resume")
    place.goes_on()


@condition("SIGHUP under `nohup`", "it is ignored; the run trains to its end; exit code 0")
def nohup(place: Place) -> None:
    program = place.started("nohup", *place.training("--iterations", 400))
    place.waits_for(place.has_checkpoint, program, "a checkpoint")
    os.kill(program.pid, signal.SIGHUP)
    place.stops(program, "trained: ", code=0)


@condition("the terminal's other end is gone, SIGHUP ignored", "the run trains to its end; exit code 0")
def terminal_gone(place: Place) -> None:
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        ["nohup", *place.training("--iterations", 400)],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env=place.environment(),
        cwd=place.folder,  # where nohup makes its file
        start_new_session=True,
    )
    os.close(theirs)
    place.afterwards(process.kill)
    ended = until(lambda: place.has_checkpoint() or process.poll() is not None or not drained(ours), SECONDS)
    place.holds(ended and process.poll() is None, f"no checkpoint came; exit code {process.poll()}")
    os.close(ours)
    until(lambda: process.poll() is not None, SECONDS)
    place.expect(Ended(process.poll(), "", ""))
    place.goes_on()


def drained(terminal: int) -> bool:
    """Read what is there, so that the program does not wait for it."""
    os.set_blocking(terminal, False)
    try:
        os.read(terminal, 65536)
    except BlockingIOError:
        pass
    except OSError:
        return False
    return True


@condition("a second SIGTERM while the first is obeyed", "exit code 130 at once; no traceback")
def second_signal(place: Place) -> None:
    program = place.started(*place.training(*LONG, serial=False))
    place.waits_for(place.has_checkpoint, program, "a checkpoint")
    os.kill(program.pid, signal.SIGTERM)
    os.kill(program.pid, signal.SIGINT)
    place.stops(program, code=130)
    place.goes_on()


@condition("SIGTERM while the program starts", "it ends with 130 or 143; no traceback; the name can be used again")
def early_signal(place: Place) -> None:
    for wait in (0.05, 0.5, 1.0, 2.0, 3.0):
        program = place.started(*place.training(*LONG, serial=False))
        time.sleep(wait)
        os.kill(program.pid, signal.SIGTERM)
        code = program.wait(SECONDS)
        place.expect(Ended(code, program.printed(), ""), code=(130, -signal.SIGTERM, 143))
    place.expect(place.train("--resume"), "trained: |resuming")


@condition("SIGINT in the final evaluation", "exit code 130; says that the checkpoint is written")
def signal_in_final_evaluation(place: Place) -> None:
    options = ("--evaluation.final-episodes", 10**6)
    program = place.started(*place.training(*options))
    # The budget of learner steps is reached: from here on it only evaluates.
    newest = place.run / "checkpoints" / "60"
    place.waits_for(newest.exists, program, "the last checkpoint")
    time.sleep(1.0)
    os.kill(program.pid, signal.SIGINT)
    place.stops(program, "evaluat")
    place.expect(place.launch("evaluate", place.run, "--episodes", 1), "return_mean=")


@condition("SIGSTOP and SIGCONT (Ctrl-Z, fg)", "the run goes on to its end; exit code 0")
def stopped_and_continued(place: Place) -> None:
    program = place.started(*place.training("--iterations", 200))
    place.waits_for(place.has_checkpoint, program, "a checkpoint")
    os.kill(program.pid, signal.SIGSTOP)
    time.sleep(3.0)
    os.kill(program.pid, signal.SIGCONT)
    place.stops(program, "trained: ", code=0)


@condition("`presets | head -1`", "one line and nothing else")
def presets_head(place: Place) -> None:
    ended = place.expect(place.shell("$LAUNCH presets | head -1; exit ${PIPESTATUS[0]}"), code=(0, 141))
    place.holds(ended.err == "" and len(ended.out.splitlines()) == 1, f"it says {ended.said[-200:]}")


@condition("`evaluate` and `report` to /dev/full", "exit code 1; one line on stderr")
def results_to_full_device(place: Place) -> None:
    run = place.trained()
    for words in (f"evaluate {run} --episodes 1", f"report {run}"):
        ended = place.expect(place.shell(f"exec $LAUNCH {words} > /dev/full"), "error: .*space", code=1)
        place.holds(len(re.findall("^.+$", ended.err, re.MULTILINE)) == 1, f"more than one line: {ended.err[-300:]}")


@condition("`evaluate --json | head -c 1`", "no message; exit code 0 or that of a closed pipe")
def closed_json(place: Place) -> None:
    run = place.trained()
    script = f"$LAUNCH evaluate {run} --episodes 1 --json | true; exit ${{PIPESTATUS[0]}}"
    ended = place.expect(place.shell(script), code=(0, 1, 141))
    place.holds("Broken pipe" not in ended.err and "Exception" not in ended.err, f"it says {ended.err[-200:]}")
