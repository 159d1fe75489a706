"""How the driver gets its Ray: a private one that nobody else may use, or a cluster that it joins."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import os
import secrets
import shutil
import signal
import stat
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil

from muzero_ray.actors.import_path import CODE, added_path, driver_path, folder_of, job_config
from muzero_ray.actors.ray_folder import folder_for_sockets, refuse_address_file_of_others
from muzero_ray.actors.tokens import forget_blank_token, holds_token
from muzero_ray.actors.user_limits import refuse_few_threads, start_remedy
from muzero_ray.config.schema import Config
from muzero_ray.errors import ConfigError, MuZeroRayError, in_one_line
from muzero_ray.printed import launch_line
from muzero_ray.private_folder import PrivateFolder, shared_folder
from muzero_ray.stop_signals import not_for_children

UNSEEN = (
    "RAY_task_events_report_interval_ms",
    "RAY_event_stats",
    "RAY_enable_metrics_collection",
    "RAY_LOG_MONITOR_MANY_FILES_THRESHOLD",
)
"""What Ray notes down for its dashboard; a private one has none. The last: from how many log files on it looks for new
ones twice a second instead of ten times."""

CONNECT_SECONDS = ("RAY_gcs_rpc_server_connect_timeout_s", "1")
"""How long processes of a private Ray look for its control process, which is there before them: a worker that is just
starting when the whole program is killed does so several times, and stays for 26 s where that is Ray's default of 5."""

NO_PRESTART = ("RAY_prestart_worker_first_driver", "0")
"""Ray would start some workers ahead, and `ray.init` would wait for them without end if they cannot start."""

EVALUATOR_CPUS = 0.1
"""It mostly waits."""

M_ARENA_MAX = -8
"""The name of a setting in glibc's malloc.h."""

LEAST_STORE_BYTES = 80 << 20
"""Least size of Ray's object store; with less it does not start."""


_folders: list[PrivateFolder] = []
"""The folders of this process's private Ray. It has one at most, as Ray itself is there once in a process."""


@contextlib.contextmanager
def connected(address: str | None, namespace: str) -> Iterator[str | None]:
    """`connect`, and `disconnect` at the end of the block. Afterwards it may be entered again."""
    refuse_ray_of_others(address)  # and do not end it
    try:
        yield connect(address, namespace)
    finally:
        disconnect()


def connect(address: str | None, namespace: str) -> str | None:
    """Start a private Ray (address None), or join the cluster at `address` (`auto` or `HOST:PORT`) from a node of it.

    `disconnect` ends it. Returns what a person should be warned of. Raises ConfigError for an address that cannot be
    joined or a temporary folder that cannot be used, MuZeroRayError if a private Ray would let in whoever knows no
    token.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    forget_blank_token()
    token = token_file()
    if address is None:
        make_token(token)
        os.environ["RAY_AUTH_MODE"] = "token"
    else:
        use_token(token)
    limit_malloc_arenas()
    # Only now: Ray reads these variables once, when it is first imported.
    from muzero_ray.actors.ray_internals import asks_for_token
    from muzero_ray.actors.ray_watch import keep_sigterm_handler

    warning = None
    with keep_sigterm_handler():
        if address is None:
            warning = start_private(namespace)
        else:
            _join(address, namespace)
    if asks_for_token():
        return warning
    if address is None:
        disconnect()
        raise MuZeroRayError(
            "RAY_AUTH_MODE=token came too late, Ray was imported before: it would let in anybody. Set it first"
        )
    return (
        "this cluster asks for no token: whoever reaches its ports can run programs on it. Set RAY_AUTH_MODE=token on "
        "every node before `ray start` (SECURITY.md)"
    )


def refuse_ray_of_others(address: str | None) -> None:
    """ConfigError if this process has a Ray already that a run must neither use nor end, or that was imported too early
    to ask for a token."""
    ray: Any = sys.modules.get("ray")
    if ray is None:
        return
    if ray.is_initialized():
        raise ConfigError(
            "Ray is running in this process already (ray.init was called), and a run has its own. Train in a process "
            "of its own, or with serial=True"
        )
    from muzero_ray.actors.ray_internals import asks_for_token

    if address is None and not asks_for_token():
        raise ConfigError(
            "Ray was imported in this process before RAY_AUTH_MODE=token was set, so a run's own Ray would let in "
            "anybody. Start Python with RAY_AUTH_MODE=token in its environment, or train with serial=True"
        )


def disconnect() -> None:
    """End the private Ray, and remove what it kept, or leave the cluster that was joined."""
    if "ray" in sys.modules:  # otherwise a signal came while it was imported, and there is nothing to end
        from muzero_ray.actors.ray_watch import shut_down

        shut_down([folder.path for folder in _folders])
    while _folders:
        _folders.pop().remove()


def limit_malloc_arenas() -> None:
    """Let all threads that come from now on share one heap, where malloc is glibc's.

    It gives each of a process's many threads (Ray's, gRPC's) a heap of its own, and each creeps to the most that its
    thread ever needed: most of what a driver of an hour grew by (docs/reliability.md).
    """
    if (mallopt := getattr(ctypes.CDLL(None), "mallopt", None)) is not None:
        mallopt(M_ARENA_MAX, 1)


def freeze_startup_objects() -> None:
    """Take what there is by now (libraries, mostly) for permanent, once everything is set up.

    Python collects its garbage in full when a quarter as many objects are new as are old. With libraries of half a
    million objects among the old, garbage piles up for ten minutes; without, it goes as it comes.
    """
    gc.collect()
    gc.freeze()
    gc.collect()  # counts anew what is old


def start_private(namespace: str) -> str | None:
    """`ray.init` of a Ray for this run alone: nobody looks at it, so it need not account for itself.

    Its files are in a folder that only this user can enter: Ray opens all it makes to everybody, and whoever can
    replace its folders or sockets can replace what workers talk to. Returns what a person should be told of the place.
    Raises ConfigError if there is no place for that folder, MuZeroRayError if Ray does not start: it gives its
    processes half a minute.
    """
    import ray

    refuse_few_threads()
    for name in UNSEEN:
        os.environ.setdefault(name, "0")
    os.environ.setdefault(*CONNECT_SECONDS)
    os.environ.setdefault(*NO_PRESTART)
    parent, notice = folder_for_sockets()
    _folders.append(PrivateFolder(parent))
    try:
        with not_for_children(signal.SIGHUP):  # nor is Ctrl-C, by Ray itself
            ray.init(
                address="local",
                namespace=namespace,
                log_to_driver=False,
                include_dashboard=False,
                object_store_memory=object_store_bytes(),
                job_config=job_config(driver_path()),
                _temp_dir=str(_folders[-1].path / "r"),
            )
    except Exception as error:  # Ray raises no narrower one here
        disconnect()
        raise MuZeroRayError(f"Ray did not start ({in_one_line(error)}). {start_remedy()}") from error
    return notice


def _join(address: str, namespace: str) -> None:
    """`ray.init` on a node of a cluster, whose other nodes get this program's code."""
    import ray

    from muzero_ray.actors.ray_watch import refuse_unreachable

    if "://" in address:
        raise ConfigError(
            f"run.address={address}: the driver must run on a node of the cluster, since replay and checkpoints are "
            "written there. Use --address auto on a node, or: "
            f"{launch_line('submit', '...', '--address', 'http://HEAD:8265')}"
        )
    # Where Ray finds what `auto` is; TMPDIR may be this run's own by now.
    os.environ.setdefault("RAY_TMPDIR", str(shared_folder()))
    if address == "auto" and "RAY_ADDRESS" not in os.environ:
        refuse_address_file_of_others(Path(os.environ["RAY_TMPDIR"], "ray", "ray_current_cluster"))
    refuse_unreachable(address)
    # In front of what nodes have themselves: the code, and then where this driver finds environments.
    environment: dict[str, Any] = {
        "py_modules": [str(folder_of(package)) for package in CODE],
        "excludes": ["__pycache__"],
    }
    if added := added_path():  # an empty PYTHONPATH would mean the current directory
        environment["env_vars"] = {"PYTHONPATH": os.pathsep.join(added)}
    try:
        ray.init(
            address=address,
            namespace=namespace,
            log_to_driver=False,
            runtime_env=environment,
            job_config=job_config([]),
        )
    except (ConnectionError, RuntimeError, ray.exceptions.RayError) as error:
        raise ConfigError(
            f"run.address={address}: cannot join that cluster ({in_one_line(error)}). Start it first, with "
            "`ray start`, and under the same token (docs/cluster.md); without --address a private Ray is used"
        ) from error


def token_file() -> Path:
    """Where Ray looks for the token, unless RAY_AUTH_TOKEN holds it."""
    return Path(os.environ.get("RAY_AUTH_TOKEN_PATH") or Path.home() / ".ray" / "auth_token")


def use_token(file: Path) -> None:
    """Show the token, if there is one, to the cluster that is joined. It has to come before Ray is imported."""
    if os.environ.get("RAY_AUTH_TOKEN") or holds_token(file):
        os.environ.setdefault("RAY_AUTH_MODE", "token")


def make_token(file: Path) -> None:
    """See to it that there is a token, and that nobody else can read it. Ray's own would be readable by everyone.

    Without a home that can be written to, the token is only in the environment of this program and its workers.
    """
    if os.environ.get("RAY_AUTH_TOKEN"):
        return
    try:
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        if file.is_file() and not holds_token(file):
            file.unlink()
        with contextlib.suppress(FileExistsError):
            handle = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with open(handle, "w") as opened:
                opened.write(secrets.token_hex(32))
        if file.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO):
            file.chmod(0o600)
    except OSError as error:
        if "RAY_AUTH_TOKEN_PATH" not in os.environ:
            os.environ["RAY_AUTH_TOKEN"] = secrets.token_hex(32)
            return
        raise ConfigError(
            f"Ray's token file {file} cannot be made private ({error.strerror}). Name another with RAY_AUTH_TOKEN_PATH"
        ) from error


def object_store_bytes() -> int:
    """Shared memory of a private Ray: weights, batches and segments on their way.

    A tenth of the memory, at least 1 GiB if that is there, and never more than /dev/shm has free (beyond it Ray writes
    to the disk). Pages count only once they are used.
    """
    memory = psutil.virtual_memory().total
    wanted = max(memory // 10, min(1 << 30, memory // 4))
    shared = Path("/dev/shm")
    free = shutil.disk_usage(shared).free * 9 // 10 if shared.is_dir() else wanted
    return max(min(wanted, free), LEAST_STORE_BYTES)


def check_cpus(config: Config, free: float, *, private: bool) -> str | None:
    """What to tell a person if not every worker gets a place in `free` CPUs; None if all do.

    Raises ConfigError if a private Ray, which never grows, could not even hold one self-play actor beside the rest.
    """
    actors, learner, learners = config.actors, config.learner, config.learner.workers
    rest = learners * learner.cpus + EVALUATOR_CPUS + (actors.num_cpus if config.reanalyze.ratio > 0 else 0.0)
    fitting = int((free - rest) / actors.num_cpus + 1e-6) if free >= rest else 0
    if fitting >= actors.count:
        return None
    needed = rest + actors.count * actors.num_cpus
    if private and fitting < 1:
        each = f" for each of learner.workers={learners}" if learners > 1 else ""
        raise ConfigError(
            f"learner.cpus={learner.cpus:g}{each} and actors.num_cpus={actors.num_cpus:g} need "
            f"{rest + actors.num_cpus:g} CPUs for one self-play actor and the rest, this machine has {free:g}: nothing "
            "would ever start. Lower them; they are what Ray reserves, not what is used"
        )
    return (
        f"{needed:g} CPUs are needed and {free:g} are free: {fitting} of {actors.count} self-play actors start, the "
        "others wait for CPUs. To start them all, lower --actors or --actors.num-cpus"
    )
