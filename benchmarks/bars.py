"""What is asked of the figures: one place for every bar, by the name of the row that must meet it."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from typing import Literal, NamedTuple

from benchmarks.measure import Row, number

_COMPARE = {">=": operator.ge, "<=": operator.le}


class Limit(NamedTuple):
    """The figure, or the ratio to its baseline, against a number."""

    of: Literal["figure", "ratio"]
    sign: Literal[">=", "<="]
    value: float

    def met(self, row: Row) -> bool:
        value = row.figure if self.of == "figure" else row.ratio
        return value is not None and bool(_COMPARE[self.sign](value, self.value))

    def __str__(self) -> str:
        words = "" if self.of == "figure" else "ratio "
        return f"{words}{self.sign} {number(self.value) if self.value >= 1000 else f'{self.value:g}'}"


@dataclass(frozen=True)
class Bar:
    """rows: names, `*` for any text. limits: one of them is enough."""

    rows: str
    limits: tuple[Limit, ...]

    def __str__(self) -> str:
        return " or ".join(str(limit) for limit in self.limits)


def _least(rows: str, value: float) -> Bar:
    return Bar(rows, (Limit("figure", ">=", value),))


def _most(rows: str, value: float) -> Bar:
    return Bar(rows, (Limit("figure", "<=", value),))


def _ratio(rows: str, sign: Literal[">=", "<="], value: float) -> Bar:
    return Bar(rows, (Limit("ratio", sign, value),))


BARS = (
    _least("tree/puct/B64/A4", 1_200_000),
    _least("tree/puct/B64/A18", 800_000),
    _least("tree/puct/B1/A4", 200_000),
    _least("tree/puct/B1/A18", 150_000),
    _ratio("tree/gumbel/*", ">=", 0.77),  # within 1.3 times the time
    Bar("search/mlp/compiled-fp32/B64/S50", (Limit("figure", ">=", 250_000), Limit("ratio", ">=", 0.7))),
    _least("search/mlp/compiled-fp32/B1/S50", 10_000),
    *(_ratio(f"search-gain/conv/openvino-bf16/B{batch}/*", ">=", 3.0) for batch in (8, 16, 64)),
    *(_ratio(f"search-outside/conv/openvino-bf16/B{batch}/*", "<=", 0.05) for batch in (8, 16, 64)),
    _most("quality/*/compiled-fp32", 0.02),
    _most("quality/*/openvino-bf16", 0.02),
    _least("selfplay/cartpole/compiled-fp32/S50", 3_000),
    _ratio("weights-share/*/compiled-fp32", "<=", 0.02),
    _ratio("weights-share/*/openvino-bf16", "<=", 0.02),
    # "No move waits for it": moves meanwhile may share a core with the preparation, so they may take twice as long.
    _ratio("weights-during/*/compiled-fp32", "<=", 2.0),
    _ratio("weights-during/*/openvino-bf16", "<=", 2.0),
    _ratio("learner/breakout/*/bf16", ">=", 2.0),
    _most("learner-curve/breakout/bf16", 0.02),
    _most("replay/bytes/*", 1_000),
    _most("replay/resident/*", 1_000),
    _most("replay/sample/*/256x(5+1)", 30.0),
    _ratio("replay/insert+sample/1000000", "<=", 1.5),
    _ratio("replay/searched-again/*", ">=", 0.9),
    _most("environment/atari-reset/*", 8.0),
    _ratio("selfplay-gain/breakout/atari-reset", ">=", 1.2),
    _ratio("system/busy", ">=", 0.95),
    _ratio("system/learner-wait", "<=", 0.05),
    _ratio("coordination/*/self-play", ">=", 0.95),
    _ratio("coordination/*/learner", ">=", 0.9),
    _least("coordination/replay-intake-breakout", 64),
)


def judge(rows: Sequence[Row]) -> list[Row]:
    """`rows` with their bars, and whether they are met. A row without a ratio does not meet a bar on it."""
    judged = []
    for row in rows:
        bar = next((bar for bar in BARS if fnmatchcase(row.name, bar.rows)), None)
        met = None if bar is None else any(limit.met(row) for limit in bar.limits)
        judged.append(replace(row, bar=None if bar is None else str(bar), met=met))
    return judged
