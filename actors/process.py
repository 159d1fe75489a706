"""What every worker process sets up first."""

from __future__ import annotations

import torch


def limit_threads(threads: int) -> None:
    """Torch threads of this process: Ray sets OMP_NUM_THREADS from whole CPUs only."""
    torch.set_num_threads(threads)
