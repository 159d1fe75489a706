"""Free memory goes back to the system: seen in what the system counts."""

from __future__ import annotations

import sys

import psutil
import pytest

from muzero_ray.runtime.memory import _trim, release_free_memory


@pytest.mark.skipif(sys.platform != "linux" or _trim() is None, reason="glibc only")
def test_free_pages_between_kept_blocks_go_back() -> None:
    process = psutil.Process()
    blocks = [bytes(2_000) for _ in range(40_000)]  # of malloc, not of Python's own arenas; below its mmap threshold
    kept = blocks[::1000]
    del blocks
    before = process.memory_info().rss
    release_free_memory()
    assert before - process.memory_info().rss > 30_000_000
    assert len(kept) == 40
