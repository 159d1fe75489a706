"""`python -m muzero_ray`: the command line, as `muzero-ray` is in an installation."""

from __future__ import annotations

import sys

from muzero_ray.launch import program

if __name__ == "__main__":
    sys.exit(program())
