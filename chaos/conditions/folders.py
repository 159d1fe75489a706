"""Folders that are not there, not ours, full of something else, or named in a way nobody thought of."""

from __future__ import annotations

import shlex
import shutil

from chaos.conditions.place import Place, condition
from chaos.programs import LAUNCH
from chaos.report import ROOT


@condition("--runs-dir is a file", "exit code 2; the file is named")
def runs_dir_is_a_file(place: Place) -> None:
    (place.folder / "runs").write_text("")
    place.expect(place.train(), f"{place.folder}/runs", code=2)


@condition("--runs-dir belongs to another user", "exit code 1 or 2; the folder is named, and that it cannot be written")
def runs_dir_of_another(place: Place) -> None:
    (place.folder / "runs").mkdir(mode=0o755)
    command = place.as_another_user(place.training())
    place.expect(place.call(command), f"{place.folder}/runs.*(permission|writable)", code=(1, 2))


@condition("--runs-dir is a link that leads nowhere", "exit code 1 or 2; the link is named")
def dangling_link(place: Place) -> None:
    (place.folder / "runs").symlink_to(place.folder / "nowhere" / "at" / "all")
    place.expect(place.train(), f"{place.folder}/runs", code=(1, 2))


@condition("a run's name of 300 letters", "exit code 1 or 2; the name is said to be too long")
def long_name(place: Place) -> None:
    place.expect(place.train(name="x" * 300), "too long|at most", code=(1, 2))


@condition("a run's name `..`", "exit code 2; run.name is named")
def name_that_leads_out(place: Place) -> None:
    place.expect(place.train(name=".."), r"run\.name", code=2)
    place.holds(not (place.folder / "config.yaml").exists(), "it wrote beside the runs")


@condition("a run of that name is there already", "exit code 2; `resume` is offered; the run is as it was")
def name_taken(place: Place) -> None:
    run = place.trained()
    before = (run / "metrics.jsonl").read_bytes()
    place.expect(place.train(), "resume", code=2)
    place.holds((run / "metrics.jsonl").read_bytes() == before, "its metrics changed")
    place.goes_on()


@condition("the current directory was deleted", "exit code 0 with absolute paths, or 2 with one line that says so")
def deleted_directory(place: Place) -> None:
    ended = place.shell("mkdir gone && cd gone && rmdir ../gone && exec $TRAIN")
    place.expect(ended, "trained: " if ended.code == 0 else "error: .*current directory", code=(0, 2))


@condition("a path with blanks, quotes and an umlaut", "exit code 0; the resume command that is printed runs as it is")
def odd_path(place: Place) -> None:
    odd = place.folder / "my r\u00fcns; 'here'"
    ended = place.expect(place.launch(*place.training()[2:], "--runs-dir", odd), "trained: ")
    printed = ended.out.partition("resume:  python ")[2].partition("\n")[0]
    words = shlex.split(printed) if printed.count("'") % 2 == 0 else [printed]
    place.holds(words[1:3] == ["resume", str(odd / "run")], f"the command is {printed}")
    place.expect(place.launch(*words[1:]), "resuming")


@condition("a read-only checkout, no HOME, a user without an account", "exit code 0: caches go to a private folder")
def nobody(place: Place) -> None:
    place.folder.chmod(0o777)
    environment = place.environment(HOME="/nonexistent", NUMBA_CACHE_DIR=None, USER=None, LOGNAME=None)
    copy = place.folder / "checkout"
    shutil.copytree(ROOT, copy, ignore=shutil.ignore_patterns(".*", "runs", "__pycache__", "build"), symlinks=True)
    environment["PYTHONPATH"] = str(copy)
    command = [str(copy / "launch.py") if word == str(LAUNCH) else word for word in place.training()]
    place.expect(place.call(place.as_another_user(command), environment=environment), "trained: ")


@condition("`evaluate` and `play` on another user's run", "`evaluate` works; `play` names the folder it cannot write")
def run_of_another(place: Place) -> None:
    run = place.trained()
    evaluate = place.command("evaluate", run, "--episodes", 1)
    place.expect(place.call(place.as_another_user(evaluate)), "return_mean=")
    play = place.command("play", run)
    place.expect(place.call(place.as_another_user(play)), f"{run}.*(permission|writable)", code=(1, 2))


@condition("`resume` of another user's run", "exit code 1 or 2; says what cannot be written; the run is as it was")
def resume_of_another(place: Place) -> None:
    run = place.trained()
    command = place.as_another_user(place.command("resume", run, "--iterations", 100))
    place.expect(place.call(command), f"{run}.*(permission|writable)", code=(1, 2))
    place.goes_on()


@condition("a run's folder was moved", "`resume` goes on where it is now")
def moved(place: Place) -> None:
    run = place.trained()
    elsewhere = run.rename(place.folder / "elsewhere")
    place.goes_on(elsewhere)


@condition("started inside another checkout (Ray)", "workers import what the driver imports; exit code 0")
def other_checkout(place: Place) -> None:
    for package in ("actors", "learner", "muzero_ray"):
        (place.folder / package).mkdir()
        (place.folder / package / "__init__.py").write_text("raise RuntimeError('code of the current directory')\n")
    environment = place.environment(PYTHONPATH=None)
    place.expect(place.train(serial=False, environment=environment), "trained: ", never="code of the current directory")


@condition("TMPDIR is a path of 150 letters (Ray)", "exit code 0, or 2 with TMPDIR named and what to do")
def long_temporary_folder(place: Place) -> None:
    long = place.folder / ("t" * 75) / ("t" * 75)
    long.mkdir(parents=True)
    ended = place.train(serial=False, environment=place.environment(TMPDIR=str(long)))
    place.expect(ended, "trained: " if ended.code == 0 else "TMPDIR", code=(0, 2))


@condition("TMPDIR is not there (Ray)", "exit code 0, or 1 or 2 with TMPDIR named")
def no_temporary_folder(place: Place) -> None:
    ended = place.train(serial=False, environment=place.environment(TMPDIR=str(place.folder / "gone")))
    place.expect(ended, "trained: " if ended.code == 0 else "TMPDIR", code=(0, 1, 2))


@condition("umask 000 (Ray)", "exit code 0; nobody else may enter the private Ray's folder")
def open_umask(place: Place) -> None:
    temporary = place.folder / "t"
    temporary.mkdir(mode=0o777)
    program = place.started(
        "bash",
        "-c",
        f"umask 000; exec {shlex.join(place.training(serial=False))}",
        environment=place.environment(TMPDIR=str(temporary)),
    )
    place.waits_for(place.has_checkpoint, program, "a checkpoint")
    open_ones = [path.name for path in temporary.iterdir() if path.is_dir() and path.stat().st_mode & 0o077]
    place.holds(not open_ones, f"others may enter {', '.join(open_ones)}")
    place.stops(program, "trained: ", code=0)
    left = [path.name for path in temporary.iterdir()]
    place.holds(not left, f"left behind: {', '.join(left)}")


@condition("a read-only runs folder for `train --resume`", "exit code 1 or 2; the folder is named")
def read_only_resume(place: Place) -> None:
    run = place.trained()
    command = place.as_another_user(place.training("--resume"))
    place.expect(place.call(command), f"{run.parent}.*(permission|writable)", code=(1, 2))
    place.goes_on()
