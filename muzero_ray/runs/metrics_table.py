"""The metrics of a run as columns."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from muzero_ray.errors import MuZeroRayError
from muzero_ray.runs.metrics import AXES
from muzero_ray.runs.side_files import SideFile, row_problem
from muzero_ray.types import Array

if TYPE_CHECKING:
    import pandas

logger = logging.getLogger(__name__)


class MetricsTable(Mapping[str, Array]):
    """The rows of a run, a float64 array `[rows]` for each column, NaN where a row has no such value.

    Columns are named as in `metrics.jsonl`; the axes (`env_steps`, `learner_steps`, `episodes`, `wall_s`) come first.
    A file that is missing, as before the first row, makes a table of no rows.

        table = mz.Run("runs/cartpole").metrics()
        table["learner_steps"], table["eval/return_mean"]
        table.to_pandas().plot(x="env_steps", y="train/return_mean")
    """

    def __init__(self, rows: list[dict[str, Any]]) -> None:
        names = dict.fromkeys(itertools.chain(AXES, *rows))
        self._columns: dict[str, Array] = {
            name: np.array([np.nan if row.get(name) is None else row[name] for row in rows], np.float64)
            for name in names
        }

    def __getitem__(self, name: str) -> Array:
        return self._columns[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._columns)

    def __len__(self) -> int:
        """Number of columns; the number of rows is the length of each."""
        return len(self._columns)

    def __repr__(self) -> str:
        return f"<MetricsTable: {len(self['env_steps'])} rows, columns {', '.join(self)}>"

    def to_pandas(self) -> pandas.DataFrame:
        """A DataFrame of the same columns. MuZeroRayError if pandas is not installed."""
        try:
            import pandas
        except ImportError as error:
            raise MuZeroRayError(
                f"to_pandas needs pandas, which cannot be imported ({error}). Install it with: pip install pandas"
            ) from error
        return pandas.DataFrame(self._columns)


def read_metrics(path: Path) -> MetricsTable:
    """The good rows of a run's metrics file; a warning names the others. CheckpointError if it cannot be read."""
    return MetricsTable(SideFile(path, row_problem).entries())
