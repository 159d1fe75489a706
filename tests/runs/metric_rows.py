"""Rows for a metrics file, and the file read back."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from muzero_ray.runs.layout import METRICS_FILE
from muzero_ray.runs.metrics import make_row


def a_row(steps: int, **values: float) -> dict[str, float]:
    return make_row(
        {name.replace("__", "/"): value for name, value in values.items()},
        env_steps=steps,
        learner_steps=steps // 2,
        episodes=steps // 10,
        wall_s=1.5,
    )


def rows_in(folder: Path) -> list[dict[str, Any]]:
    text = (folder / METRICS_FILE).read_text()

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is not JSON")

    return [json.loads(line, parse_constant=refuse) for line in text.splitlines()]
