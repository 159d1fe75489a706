"""Which kept games were searched longest ago."""

from __future__ import annotations

import heapq
from collections.abc import Mapping

from muzero_ray.replay.stored_game import StoredGame
from muzero_ray.types import WeightsVersion

_SLACK = 64


class StaleQueue:
    """Games by the weights that searched their targets, oldest first; of equals, the game that came in first.

    A heap with an entry for each version that a game has had. An entry that no longer holds, because the game has left
    or was searched again, is dropped when it reaches the top, or with all others once they outnumber the games.
    """

    def __init__(self, games: Mapping[int, StoredGame]) -> None:
        """games: those kept, by number; their owner adds to and removes from it."""
        self._games = games
        self._heap: list[tuple[WeightsVersion, int]] = []

    def enter(self, number: int) -> None:
        """Game `number` is new, or has new targets."""
        heapq.heappush(self._heap, (self._games[number].target_version, number))
        if len(self._heap) > 2 * len(self._games) + _SLACK:
            self._heap = [(game.target_version, number) for number, game in self._games.items()]
            heapq.heapify(self._heap)

    def oldest(self, count: int) -> list[int]:
        """Numbers of up to `count` games, which stay in the queue. O(count log games)."""
        found: list[tuple[WeightsVersion, int]] = []
        while self._heap and len(found) < count:
            entry = heapq.heappop(self._heap)
            if self._holds(entry) and entry not in found[-1:]:  # equal entries follow one another
                found.append(entry)
        for entry in found:
            heapq.heappush(self._heap, entry)
        return [number for _, number in found]

    def _holds(self, entry: tuple[WeightsVersion, int]) -> bool:
        version, number = entry
        game = self._games.get(number)
        return game is not None and game.target_version == version
