"""Limits of a user (`ulimit`) with which a private Ray does not start."""

from __future__ import annotations

import os
import resource

from muzero_ray.errors import MuZeroRayError

LEAST_THREADS = 200
"""Processes and threads of a user, below which Ray is not even tried: it has 147 before any worker starts."""

FEW_FILES, FEW_THREADS = 256, 1_024
"""A limit below these is named as the likely reason when Ray did not start. A process of Ray has up to 52 files open
before any worker starts."""


def refuse_few_threads() -> None:
    """MuZeroRayError where Ray's C++ would end this process without a word, since it cannot make its threads.

    The limit is of a user's threads altogether, and holds for everybody but root.
    """
    allowed = resource.getrlimit(resource.RLIMIT_NPROC)[0]
    if os.geteuid() != 0 and allowed != resource.RLIM_INFINITY and allowed < LEAST_THREADS:
        raise MuZeroRayError(f"Ray cannot start. {start_remedy()}")


def start_remedy() -> str:
    """What to do when a private Ray did not start."""
    limits = (
        ("open files", resource.RLIMIT_NOFILE, FEW_FILES, "-n"),
        ("processes and threads", resource.RLIMIT_NPROC, FEW_THREADS, "-u"),
    )
    for what, limit, few, option in limits:
        allowed = resource.getrlimit(limit)[0]
        if allowed != resource.RLIM_INFINITY and allowed < few:
            return f"The limit of {what} is {allowed}: raise it (ulimit {option} 8192), or use --serial"
    return "If this machine is very busy, try again when it is less so, or use --serial"
