"""The README's figures are those of docs/results.md, and its environment can be trained."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

import muzero_ray as mz
from muzero_ray.control.probe import probe

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()


def section(title: str) -> str:
    return README.partition(f"## {title}\n")[2].partition("\n## ")[0]


def table(text: str) -> list[list[str]]:
    """The cells of its rows, without the head."""
    rows = [line.strip("|") for line in text.splitlines() if line.startswith("|")][2:]
    return [[cell.strip() for cell in row.split("|")] for row in rows]


@pytest.mark.parametrize("row", table(section("Scores")), ids=lambda row: row[0])
def test_every_figure_of_the_score_table_is_in_the_results(row: list[str]) -> None:
    """Score, what it is compared with and time, word for word in one row there."""
    measured = {cell for cell in row[2:] if cell}
    assert len(measured) >= 2
    assert any(measured <= set(cells) for cells in table((ROOT / "docs" / "results.md").read_text()))


def test_the_environment_can_be_trained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Word for word, in a module of the name that the command gives."""
    text = section("Your own environment")
    (env_id,) = re.findall(r"`python launch.py train cartpole --env.id (\S+)`", text)
    (tmp_path / f"{env_id.partition(':')[0]}.py").write_text(text.partition("```python\n")[2].partition("```")[0])
    monkeypatch.syspath_prepend(str(tmp_path))
    task = probe(mz.load_config("cartpole").override({"env.id": env_id}))
    assert (task.spec.num_actions, task.observation_shape, task.spec.max_moves) == (2, (4,), 500)
    del sys.modules[env_id.partition(":")[0]]
