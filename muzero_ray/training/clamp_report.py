"""Says once that rewards or values are beyond the supports of their heads, and which setting would fit."""

from __future__ import annotations

import math
from collections.abc import Mapping

from muzero_ray.config.schema import NetworkConfig, SupportConfig
from muzero_ray.networks.supports import h_inverse, h_transform

STEPS = (1.0, 1.5, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0)

ROOM = {"reward": 1.0, "value": 2.0}
"""A support should hold so many times the largest target seen. The values that targets are made of were clamped."""


class ClampReport:
    """One message for rewards and one for values, from rows of metrics."""

    def __init__(self, network: NetworkConfig, last_row: Mapping[str, float]) -> None:
        """last_row: the newest row of a run that goes on, whose earlier part said what was clamped; empty if new."""
        self._supports = {"reward": network.reward, "value": network.value}
        self._said = {kind for kind in self._supports if last_row.get(f"learner/{kind}_clamped", 0.0) > 0}

    def messages(self, row: Mapping[str, float]) -> list[str]:
        """What is to be said after `row`."""
        found = []
        for kind, support in self._supports.items():
            share = row.get(f"learner/{kind}_clamped", 0.0)
            if share > 0 and kind not in self._said:
                self._said.add(kind)
                found.append(_message(kind, support, share, row[f"learner/{kind}_largest"]))
        return found


def _message(kind: str, support: SupportConfig, share: float, largest: float) -> str:
    setting = f"network.{kind}.max"
    wanted = ROOM[kind] * largest
    limit, fits = support.max, wanted
    unit = ""
    if support.transform:
        limit, fits = h_inverse(support.max), h_transform(wanted)
        unit = f", which is h({limit:.4g}),"
    percent = f"{100 * share:.0f}" if share >= 0.01 else f"{100 * share:.1g}"
    return (
        f"{setting}={support.max:g}{unit} is below {percent} % of the {kind}s trained on (largest {largest:.4g}): they "
        f"are learned as {limit:.4g}. Set --{setting} {_round_up(fits):g}"
    )


def _round_up(value: float) -> float:
    """To a round number."""
    power = 10.0 ** math.floor(math.log10(value))
    return next(step * power for step in STEPS if step * power >= value * (1 - 1e-9))
