"""Memory, files, processes, disk and time that are not enough, and numbers that are too large."""

from __future__ import annotations

import os
import shlex
import subprocess
from pathlib import Path

from chaos.conditions.place import LONG, Place, Unfit, condition

CGROUP = Path("/sys/fs/cgroup/memory")
"""Where cgroup v1 is."""


def limited(command: list[str], *limits: str) -> list[str]:
    """The command under limits of `prlimit`."""
    return ["prlimit", *(f"--{limit}" for limit in limits), *command]


def in_namespace(mounts: str, command: list[str]) -> list[str]:
    """The command where `mounts` (a line of shell) was run before, seen by nobody else."""
    who = ["--mount"] if os.geteuid() == 0 else ["--user", "--map-root-user", "--mount"]
    if subprocess.run(["unshare", *who, "true"], capture_output=True).returncode:
        raise Unfit("mount namespaces are not to be had here")
    return ["unshare", *who, "bash", "-c", f"set -e; {mounts}; exec {shlex.join(command)}"]


def under_memory(place: Place, megabytes: int, command: list[str]) -> list[str]:
    """The command in a control group that may use so much memory."""
    group = CGROUP / f"muzero-{os.getpid()}-{place.folder.name}"
    try:
        group.mkdir()
        (group / "memory.limit_in_bytes").write_text(str(megabytes << 20))
    except OSError as error:
        raise Unfit(f"control groups of memory cannot be made ({error})") from error
    place.afterwards(group.rmdir)
    return ["bash", "-c", f"echo $$ > {group}/cgroup.procs; exec {shlex.join(command)}"]


def small_disk(place: Place, option: str) -> Path:
    """A file system in memory for all runs of this place, with that option of `mount`."""
    disk = place.folder / "runs"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", option, "tmpfs", disk], check=True)
    place.afterwards(lambda: subprocess.run(["umount", "--lazy", disk], check=False))
    return disk


@condition("a container of 600 MB (Ray)", "exit code 1; memory is named, and what to lower")
def small_container(place: Place) -> None:
    command = under_memory(place, 600, place.training(serial=False))
    place.expect(place.call(command), "memory", code=1)


@condition(
    "replay that outgrows a container of 1.5 GB (serial)", "the message names memory; a checkpoint is left, and works"
)
def replay_outgrows(place: Place) -> None:
    options = (*LONG, "--replay.capacity", 10**9, "--replay.capacity-bytes", 10**12)
    code = (
        "import threading, time, sys, runpy\n"
        "hoard = []\n"
        "def grow():\n"
        "    import pathlib\n"
        f"    while not list(pathlib.Path({str(place.run)!r}, 'checkpoints').glob('[0-9]*')): time.sleep(0.1)\n"
        "    while True: hoard.append(bytearray(b'x') * (20 << 20)); time.sleep(0.05)\n"
        "threading.Thread(target=grow, daemon=True).start()\n"
        "sys.argv = sys.argv[1:]\n"
        "runpy.run_path(sys.argv[0], run_name='__main__')\n"
    )
    command = place.training(*options)
    place.call(under_memory(place, 1500, [command[0], "-c", code, *command[1:]]))
    place.goes_on()


@condition("64 open files (serial)", "exit code 0")
def few_files(place: Place) -> None:
    place.expect(place.call(limited(place.training(), "nofile=64:64")), "trained: ")


@condition("40 open files (Ray)", "exit code 1; open files are named")
def too_few_files(place: Place) -> None:
    command = limited(place.training(serial=False), "nofile=40:40")
    place.expect(place.call(command), "open files", code=(1, 2))


@condition("files of 20 kB at most", "exit code 1; the file that was not written is named")
def small_files(place: Place) -> None:
    command = limited(place.training("--network.hidden", 256), "fsize=20000:20000")
    place.expect(place.call(command), "(not written|failed).*large", code=1)


@condition("a full disk", "exit code 1; the file and the reason are named; `resume` works when there is room")
def full_disk(place: Place) -> None:
    disk = small_disk(place, "size=1m")
    place.expect(place.train("--network.hidden", 128, *LONG), "(not written|failed).*space", code=1)
    subprocess.run(["mount", "-o", "remount,size=100m", disk], check=True)
    place.goes_on()


@condition("a disk without inodes", "exit code 1; the file and the reason are named")
def no_inodes(place: Place) -> None:
    small_disk(place, "nr_inodes=12")
    place.expect(place.train(*LONG), "(not written|failed).*space", code=1)


@condition("shared memory of 40 MB (Ray)", "exit code 0, or 1 with /dev/shm named")
def small_shared_memory(place: Place) -> None:
    command = in_namespace("mount -t tmpfs -o size=40m tmpfs /dev/shm", place.training(serial=False))
    ended = place.call(command)
    place.expect(ended, "trained: " if ended.code == 0 else "/dev/shm", code=(0, 1))


@condition("30 processes and threads (Ray, another user)", "exit code 1; the reason is named; nothing hangs")
def few_processes(place: Place) -> None:
    place.folder.chmod(0o777)
    (place.folder / "home").mkdir(mode=0o777)
    (place.folder / "home").chmod(0o777)
    environment = place.environment(HOME=str(place.folder / "home"), TMPDIR=str(place.folder / "home"))
    user = place.as_another_user(limited(place.training(serial=False), "nproc=30:30"))
    place.expect(place.call(user, environment=environment), "thread|process|resource", code=1)


@condition("one core", "exit code 0; a person is told if not all actors start")
def one_core(place: Place) -> None:
    command = ["taskset", "-c", "0", *place.training("--actors", 2, serial=False)]
    place.expect(place.call(command), "trained: ", code=0)


@condition("`--minutes 0.001`", "it says that no learner step was done, and what to raise")
def no_time(place: Place) -> None:
    place.expect(place.train("--minutes", 0.001), "learner step", r"minutes", code=(0, 1, 2))


@condition("`--minutes 0.05` on a slow start (Ray)", "minutes count from the first move: it trains, exit code 0")
def short_time(place: Place) -> None:
    place.expect(
        place.train("--minutes", 0.05, "--iterations", 10**6, serial=False), "trained: ", never="no learner step"
    )


@condition("--seed 18446744073709551616", "exit code 2; the setting, the value and the largest one")
def large_seed(place: Place) -> None:
    place.expect(place.train("--seed", 2**64), "seed", "18446744073709551616", code=2)


@condition("huge numbers: 10^30 iterations, 1e308 minutes, 10^12 simulations", "each runs or is refused: exit code 2")
def large_numbers(place: Place) -> None:
    place.expect(place.train("--iterations", 10**30), "iterations", code=2)
    place.expect(place.train("--simulations", 10**12), "simulations", code=2)
    place.expect(place.train("--minutes", "inf"), "minutes", code=2)
    place.expect(place.train("--minutes", "nan"), "minutes", code=2)
    place.expect(place.train("--minutes", "1e308"), "minutes|trained: ", code=(0, 2))


@condition("a replay larger than memory is asked for", "exit code 0: what is not used is not taken")
def large_replay(place: Place) -> None:
    place.expect(place.train("--replay.capacity", 10**9, "--replay.capacity-bytes", 10**15), "trained: ")
