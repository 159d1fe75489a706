"""What every worker process sets up first, and how one tells itself from its predecessors."""

from __future__ import annotations

import contextlib
import os
import secrets
from pathlib import Path

import ray

from muzero_ray.envs.crash_note import CrashNote


def hide_gpus() -> None:
    """Let this process see no GPU from now on; before it uses one. Ray 2.60 shows all of a machine's GPUs to a process
    for which it reserved none.
    """
    os.environ["CUDA_VISIBLE_DEVICES"] = ""


def limit_threads(threads: int) -> None:
    """Torch threads of this process: Ray sets OMP_NUM_THREADS from whole CPUs only."""
    import torch  # the services do without it

    torch.set_num_threads(threads)


def restarted_by_ray() -> bool:
    """Whether this actor's process stands in for one that died, under the same handle."""
    context = ray.get_runtime_context()
    return context.get_actor_id() is not None and bool(context.was_current_actor_reconstructed)


class Service:
    """An actor that Ray restarts under the same handle."""

    def __init__(self) -> None:
        self._identity = secrets.token_hex(8)

    def identity(self) -> str:
        """Differs after each restart."""
        return self._identity


def crash_note(path: Path, environment: str) -> CrashNote | None:
    """Where the supervisor will look. None on another node than its own, or if the disk there is full: a death in an
    environment is then reported as any other.
    """
    with contextlib.suppress(OSError):
        return CrashNote(path, environment)
    return None
