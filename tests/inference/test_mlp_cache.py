"""The compiled loops round alike, whether numba has just compiled them or reads them from its cache."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests.patience import PATIENCE

PROGRAM = """
import hashlib
import numpy as np
from muzero_ray.inference.mlp_engine import CompiledMlpEngine
from tests.inference.test_mlp_engine import make, observations_for
engine = CompiledMlpEngine(make(hidden=64, layers=(64,)))
digest = hashlib.sha256()
for batch in range(1, 40):
    for array in engine.initial(observations_for((6,), batch)):
        digest.update(array.tobytes())
print(digest.hexdigest())
"""


def said_by_a_new_process(cache: Path) -> str:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        env=os.environ | {"NUMBA_CACHE_DIR": str(cache)},
        capture_output=True,
        text=True,
        check=True,
        timeout=PATIENCE,
    )
    return done.stdout


def test_the_first_process_on_a_machine_computes_what_later_ones_do(tmp_path: Path) -> None:
    first = said_by_a_new_process(tmp_path)
    assert any(tmp_path.rglob("*.nbc")), "nothing was stored"
    assert said_by_a_new_process(tmp_path) == first
