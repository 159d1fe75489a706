"""Be told what happens in a run, and end it at a score: `python examples/callbacks.py`.

From the command line: `python launch.py train cartpole --run.callbacks examples.callbacks:StopAtScore`. Modules are
found beside launch.py and on PYTHONPATH.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import muzero_ray as mz


class StopAtScore:
    """Ends the run at the first evaluation that reaches `score`."""

    def __init__(self, score: float = 475.0) -> None:
        self.score = score

    def on_evaluation(self, score: Any) -> object:
        """score: mean, returns, learner_step, ..."""
        return mz.STOP if score.mean >= self.score else None


class Diary:
    """Keeps the longest game, and says where checkpoints are."""

    longest = 0

    def on_game(self, history: Any, stats: Any) -> None:
        """A game, or a segment of a long one. stats: of the call in which it was played."""
        self.longest = max(self.longest, len(history))
        assert stats.transitions > 0

    def on_checkpoint(self, path: Path) -> None:
        print(f"checkpoint {path.name}; the longest segment so far has {self.longest} moves")


def main(settings: Mapping[str, Any] | None = None, score: float = 475.0) -> mz.Run:
    """settings: in place of the preset's, by their dotted names."""
    callbacks = [StopAtScore(score), Diary()]
    return mz.train("cartpole", {"run.minutes": 5, **(settings or {})}, serial=True, callbacks=callbacks)


if __name__ == "__main__":
    main()
