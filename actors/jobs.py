"""A training run as a job of a Ray cluster: what is sent, and what is said when that cannot be done."""

from __future__ import annotations

import importlib.util
import os
import shlex
import shutil
import socket
import time
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from muzero_ray.actors.cluster import token_file, use_token
from muzero_ray.actors.import_path import CODE, folder_of
from muzero_ray.actors.tokens import forget_blank_token
from muzero_ray.cli.commands import SubmitCommand
from muzero_ray.config.files import dump_config
from muzero_ray.errors import ConfigError, MuZeroRayError, in_one_line
from muzero_ray.private_folder import PrivateFolder

if TYPE_CHECKING:
    from ray.job_submission import JobSubmissionClient

CLIENT_NEEDS = "aiohttp"
"""The package that Ray's job client needs and plain `ray` does not bring."""

CONFIG_FILE = "job.yaml"

ENTRYPOINT = ("python", "launch.py", "train", "--config", CONFIG_FILE, "--resume")
"""Its configuration says where the cluster is: `run.address` is `auto`."""

RUN_KEY = "muzero_run"
"""Key in the metadata of a job: the folder of its run."""

REACH_SECONDS = 5.0

START_SECONDS = 120.0
"""Seconds for a job to say that its workers are starting. If nodes take longer to come, it is not followed further."""

STARTED = "starting workers"
"""What a run prints once the Python of the cluster, the settings and Ray have turned out to be right."""

POLL_SECONDS = 0.5

LAST_LINES = 12
"""Last lines shown of the log of a job that did not start."""


def submit(command: SubmitCommand) -> str:
    """Start the run as a job, or go on with it if its folder is there; returns what to tell a person.

    Raises ConfigError if the dashboard does not answer, or if Ray's job client is not installed; MuZeroRayError if it
    refuses, if the run is already running, or if the job ends before its workers start.
    """
    forget_blank_token()
    use_token(token_file())
    _reach(command.address)
    _check_client()
    # Ray would take them instead of what was asked for.
    for name in ("RAY_ADDRESS", "RAY_API_SERVER_ADDRESS"):
        os.environ.pop(name, None)
    from ray.exceptions import RayError
    from ray.job_submission import JobSubmissionClient

    try:
        client = JobSubmissionClient(command.address)
        _refuse_second(client, command)
        with PrivateFolder() as folder:
            job = client.submit_job(
                entrypoint=shlex.join(ENTRYPOINT),
                runtime_env={"working_dir": str(package(folder / "job", command))},
                metadata={RUN_KEY: str(command.folder)},
            )
        started = _await_start(client, job)
    except (ConnectionError, RuntimeError, RayError) as error:
        raise MuZeroRayError(
            f"submit: the dashboard at {command.address} refused ({in_one_line(error)}). If it is "
            "about a token: RAY_AUTH_TOKEN must hold the cluster's (docs/cluster.md)"
        ) from error
    state = f"trains in {command.folder}" if started else f"has not started yet; it will train in {command.folder}"
    return (
        f"job {job} {state} on the head node; the same command goes on with it\n"
        f"follow: {_ray_job('logs --follow', job, command)}\nstop:   {_ray_job('stop', job, command)}"
    )


def _await_start(client: JobSubmissionClient, job: str) -> bool:
    """Whether the job has started its workers, within START_SECONDS. MuZeroRayError if it ended before that."""
    end = time.monotonic() + START_SECONDS
    while time.monotonic() < end:
        status = client.get_job_status(job)
        log = client.get_job_logs(job)
        if STARTED in log or status == "SUCCEEDED":
            return True
        if status.is_terminal():
            reason = "\n".join(log.strip().splitlines()[-LAST_LINES:]) or client.get_job_info(job).message
            raise MuZeroRayError(
                f"submit: job {job} ended before it trained ({status.lower()}). The end of its log:\n{reason}\n"
                "If a package is missing there: `python` on the cluster must be the one that has this project's "
                "requirements. Activate its environment before `ray start` (docs/cluster.md)"
            )
        time.sleep(POLL_SECONDS)
    return False


def _ray_job(what: str, job: str, command: SubmitCommand) -> str:
    """A command line of Ray's for that job, as it works in any shell: Ray's own default is to show no token."""
    mode = os.environ.get("RAY_AUTH_MODE")
    prefix = f"RAY_AUTH_MODE={mode} " if mode else ""
    return f"{prefix}ray job {what} {job} --address {shlex.quote(command.address)}"


def package(folder: Path, command: SubmitCommand) -> Path:
    """Put into `folder` what a job needs: the program and its whole configuration, and nothing else. Returns it."""
    root = Path(__file__).resolve().parents[1]
    folder.mkdir(exist_ok=True)
    for name in CODE:
        shutil.copytree(folder_of(name), folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy2(root / "launch.py", folder)
    (folder / CONFIG_FILE).write_text(dump_config(command.config))
    return folder


def _check_client() -> None:
    if importlib.util.find_spec(CLIENT_NEEDS) is None:
        raise ConfigError(
            f"submit: Ray's job client is not installed ({CLIENT_NEEDS} is missing): plain `ray` does not bring it. "
            "Install it: pip install 'muzero-ray[cluster]'"
        )


def _reach(address: str) -> None:
    """Raise ConfigError within seconds if nothing answers; Ray would try for minutes."""
    try:
        parts = urlsplit(address)
        port = parts.port or (443 if parts.scheme == "https" else 80)
        socket.create_connection((parts.hostname or "", port), timeout=REACH_SECONDS).close()
    except (OSError, ValueError) as error:  # ValueError: not an address at all
        reason = getattr(error, "strerror", None) or error
        raise ConfigError(
            f"--address: no dashboard answers there (got {address}: {reason}). It is on port 8265 of "
            "the head node if Ray was installed as ray[default]; from elsewhere open a tunnel first: "
            "ssh -L 8265:localhost:8265 HEAD, and give http://localhost:8265"
        ) from error


def _refuse_second(client: JobSubmissionClient, command: SubmitCommand) -> None:
    """Raise MuZeroRayError if a job trains this run already: two drivers would write to one folder."""
    for job in client.list_jobs():
        if (job.metadata or {}).get(RUN_KEY) == str(command.folder) and not job.status.is_terminal():
            raise MuZeroRayError(
                f"submit: run {command.folder} is training already, as job {job.submission_id}. Stop that first, or "
                "choose another --run.name"
            )
