"""Which games were ever added, in little memory: most are below a per-actor watermark."""

from __future__ import annotations

from muzero_ray.types import GameId

# Pushes of one actor overtake each other by a few. One that comes this much late was given up long before.
_MAX_GAP = 1024


class SeenIds:
    """Set of `GameId` that never forgets and hardly grows: sequence numbers of an actor come nearly in order."""

    def __init__(self) -> None:
        self._below: dict[tuple[int, int], int] = {}
        self._above: dict[tuple[int, int], set[int]] = {}

    def __contains__(self, game_id: GameId) -> bool:
        source = (game_id.actor, game_id.incarnation)
        return game_id.seq < self._below.get(source, 0) or game_id.seq in self._above.get(source, ())

    def add(self, game_id: GameId) -> None:
        """Remember `game_id`."""
        source = (game_id.actor, game_id.incarnation)
        below, above = self._below.get(source, 0), self._above.setdefault(source, set())
        above.add(game_id.seq)
        if len(above) > _MAX_GAP:
            below = min(above)
        while below in above:
            above.remove(below)
            below += 1
        self._below[source] = below

    def state(self) -> list[list[int]]:
        """JSON-able: one row `[actor, incarnation, watermark, *seen above it]` per source."""
        return [[*source, below, *sorted(self._above[source])] for source, below in self._below.items()]

    def load_state(self, state: list[list[int]]) -> None:
        """Go on from `state()`."""
        self._below = {(row[0], row[1]): row[2] for row in state}
        self._above = {(row[0], row[1]): set(row[3:]) for row in state}
