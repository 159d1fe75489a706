"""Turns the moves of one environment into `GameHistory` segments."""

from __future__ import annotations

import numpy as np

from muzero_ray.types import Array, BoolArray, FloatArray, GameHistory, GameId, WeightsVersion


class GameRecorder:
    """Collects one game; hands out a segment when it is long enough, and the rest when the game ends.

    segment_length: positions a segment owns. overlap: further steps it carries, so that K unrolled steps with n-step
    targets can be formed at its last owned position (K + n). frame_stack: frames the network sees at once.
    """

    def __init__(self, *, segment_length: int, overlap: int, frame_stack: int) -> None:
        self._segment_length = segment_length
        self._overlap = overlap
        self._frame_stack = frame_stack
        self._frames: list[Array] = []
        self._actions: list[int] = []

    def start(self, frame: Array, to_play: int, legal: BoolArray) -> None:
        """Begin a game in the state that `frame` shows."""
        self._context = 0
        self._frames = [frame]
        self._actions = []
        self._rewards: list[float] = []
        self._to_play = [to_play]
        self._legal = [legal]
        self._policies: list[FloatArray] = []
        self._root_values: list[float] = []
        self._versions: list[WeightsVersion] = []

    def record(
        self,
        *,
        action: int,
        reward: float,
        policy: FloatArray,
        root_value: float,
        version: WeightsVersion,
        frame: Array,
        to_play: int,
        legal: BoolArray,
    ) -> None:
        """One move: what the search said of the old state, and the state that followed."""
        self._actions.append(action)
        self._rewards.append(reward)
        self._policies.append(policy)
        self._root_values.append(root_value)
        self._versions.append(version)
        self._frames.append(frame)
        self._to_play.append(to_play)
        self._legal.append(legal)

    def __len__(self) -> int:
        """Moves recorded and not yet handed out as owned."""
        return len(self._actions)

    def segment_ready(self) -> bool:
        return len(self._actions) >= self._segment_length + self._overlap

    def cut(self, game_id: GameId) -> GameHistory:
        """The segment that is ready; the recorder keeps what the next one needs."""
        steps = self._segment_length
        game = self._history(game_id, owned=steps, last_value=0.0, terminated=False, truncated=False)
        first_frame = self._context + steps
        context = min(self._frame_stack - 1, first_frame)
        self._frames = self._frames[first_frame - context :]
        self._context = context
        for column in (self._actions, self._rewards, self._policies, self._root_values, self._versions):
            del column[:steps]
        del self._to_play[:steps], self._legal[:steps]
        return game

    def finish(self, game_id: GameId, *, last_value: float, terminated: bool, truncated: bool) -> GameHistory:
        """The rest of a game that has ended. last_value: value of the last state, 0 if terminated."""
        return self._history(
            game_id, owned=len(self._actions), last_value=last_value, terminated=terminated, truncated=truncated
        )

    def partial(self) -> GameHistory:
        """The game so far, for a checkpoint; `resume` takes it back."""
        return self._history(
            GameId(0, 0, 0), owned=len(self._actions), last_value=0.0, terminated=False, truncated=False
        )

    @property
    def versions(self) -> list[WeightsVersion]:
        """Which weights played each recorded move."""
        return list(self._versions)

    def resume(self, game: GameHistory, versions: list[WeightsVersion]) -> None:
        """Go on with a game that `partial` returned, and the `versions` of that moment."""
        self._context = game.context
        self._frames = list(game.observations)
        self._actions = game.actions.tolist()
        self._rewards = game.rewards.tolist()
        self._to_play = game.to_play.tolist()
        self._legal = list(game.legal)
        self._policies = list(game.policies)
        self._root_values = game.root_values[:-1].tolist()
        self._versions = list(versions)

    def _history(
        self, game_id: GameId, *, owned: int, last_value: float, terminated: bool, truncated: bool
    ) -> GameHistory:
        legal = np.stack(self._legal)
        return GameHistory(
            id=game_id,
            observations=np.stack(self._frames),
            context=self._context,
            actions=np.asarray(self._actions, np.int32),
            rewards=np.asarray(self._rewards, np.float32),
            to_play=np.asarray(self._to_play, np.int8),
            legal=legal,
            policies=np.asarray(self._policies, np.float32).reshape(len(self._actions), legal.shape[1]),
            root_values=np.asarray([*self._root_values, last_value], np.float32),
            owned=owned,
            terminated=terminated,
            truncated=truncated,
            version=self._versions[0] if self._versions else WeightsVersion(0, 0),
        )
