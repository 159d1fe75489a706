"""The command line as `python -m muzero_ray`; installed, `muzero-ray` is the same."""

from __future__ import annotations

import sys

from muzero_ray.launch import program

if __name__ == "__main__":
    sys.exit(program())
