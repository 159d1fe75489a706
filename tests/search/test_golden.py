"""Against mctx: the trees of `tests/golden/mctx_search.json` were searched by another program."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from .worlds import Table

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "mctx_search.json").read_text())


class FixedGumbel:
    """Stands in for a Generator: hands out the noise that mctx drew."""

    def __init__(self, noise: Any) -> None:
        self._noise = np.array(noise)

    def gumbel(self, size: tuple[int, ...]) -> Any:
        assert size == self._noise.shape
        return self._noise


def solve(case: dict[str, Any]) -> Any:
    stored = GOLDEN["models"][case["model"]]
    table = Table(*(np.array(stored[name]) for name in ("next", "reward", "value", "logits")))
    settings: dict[str, Any] = {
        "discount": case["discount"],
        "legal": np.array(case["legal"]),
        "value_bounds": case.get("bounds"),
    }
    if case["kind"] == "puct":
        settings["unvisited"] = case["unvisited"]
    else:
        settings |= {
            "c_scale": case["c_scale"],
            "considered_actions": case["considered"],
            "noise": True,
            "rng": FixedGumbel(case["gumbel"]),
        }
    return table.search(case["kind"], np.array(case["roots"]), case["simulations"], **settings)


@pytest.mark.parametrize("case", GOLDEN["cases"], ids=lambda case: case["name"])
def test_same_search_as_mctx(case: dict[str, Any]) -> None:
    result = solve(case)
    np.testing.assert_array_equal(result.visit_counts, case["visits"])
    np.testing.assert_allclose(result.policy_target, case["policy"], atol=1e-4)
    if case["kind"] == "puct":
        np.testing.assert_allclose(result.root_value, case["mean_value"], atol=1e-4)
    else:
        np.testing.assert_allclose(result.root_value, case["mixed_value"], atol=1e-4)
        np.testing.assert_array_equal(result.action, case["action"])
