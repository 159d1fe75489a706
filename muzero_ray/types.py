"""Records that cross module and process borders: frozen, numpy, each field with its shape and unit.

Letters: `B` batch, `T` steps of a game, `A` actions, `K` unrolled steps. A *step* (or *move*) is one agent decision,
never an emulator frame. Values and rewards are in env units everywhere outside `networks/supports.py`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.lib.stride_tricks import as_strided
from numpy.typing import NDArray

FloatArray = NDArray[np.float32]
IntArray = NDArray[np.int32]
LongArray = NDArray[np.int64]
BoolArray = NDArray[np.bool_]
Array = NDArray[Any]

MetricKind = Literal["mean", "last", "sum", "rate", "max"]
"""What a row of metrics holds of the values since the last row; rate: their sum per second."""


@dataclass(frozen=True)
class EnvSpec:
    """What an environment shows and takes.

    observation_shape: of one frame, `(D,)` for vectors or `(C, H, W)` for images; stacking happens outside.
    observation_dtype: "uint8" (images, networks divide by 255) or "float32".
    num_players: 1 or 2; two-player games alternate strictly and are zero-sum. note: on the numbers of an observation,
    for people.
    max_moves: most moves that a game can have by the environment's own rules or limit; None if it names no limit.
    """

    name: str
    observation_shape: tuple[int, ...]
    observation_dtype: str
    num_actions: int
    num_players: int = 1
    max_moves: int | None = None
    note: str = field(default="", compare=False)

    @property
    def seen(self) -> str:
        """What is seen and can be done, for people: `image, 4 channels of 8 x 8, uint8 0..255, scaled by 255; 4
        actions`."""
        size, *image = self.observation_shape
        planes = f"image, {size} channel{'s' * (size > 1)} of {' x '.join(map(str, image))}"
        what = planes if image else f"vector of {size}"
        return f"{what}, {self.note or self.observation_dtype}; {self.num_actions} actions"


class EnvStep(NamedTuple):
    """One transition. `reward` is what the player who acted earned, raw env units.

    terminated: the game is over, nothing more can be earned. truncated: a limit stopped it, the state still has value.
    """

    observation: Array
    reward: float
    terminated: bool
    truncated: bool


class WeightsVersion(NamedTuple):
    """(learner incarnation, learner step). Compare with `!=`: a restored learner goes back in steps."""

    incarnation: int
    step: int


@dataclass(frozen=True)
class Weights:
    """All network parameters and buffers as one flat float32 vector `[P]`, in `networks.flat` order."""

    version: WeightsVersion
    flat: FloatArray


class NetworkOutput(NamedTuple):
    """What a network says of `B` states, numpy, scalars in env units (supports already decoded).

    hidden `[B, ...]` in the dtype of the engine, reward `[B]` (0 from `initial`), value `[B]`, policy_logits `[B, A]`.
    """

    hidden: FloatArray
    reward: FloatArray
    value: FloatArray
    policy_logits: FloatArray


class EdgeAnswers(NamedTuple):
    """What a model says of one edge of each of `B` trees, and of the state it leads to; scalars in env units.

    reward `[B]`, for the player who acted. discount `[B]` float64: what the value of the state counts for, seen from
    the node before it; negative where the other player is to move. value `[B]`, policy_logits `[B, A]`.
    """

    reward: FloatArray
    discount: Array
    value: FloatArray
    policy_logits: FloatArray


class HostPool(NamedTuple):
    """Memory of the host in which a model keeps the latents of `B` trees, and from which a search gathers them.

    nodes: for each of `N` nodes its latents of all trees, `[B, ...]`. latents: the same as one array, `[N, B, ...]`.
    hidden `[B, ...]`: where those of the parents are gathered.
    """

    nodes: list[Array]
    latents: Array
    hidden: Array


class SearchResult(NamedTuple):
    """action `[B]` int32, policy_target `[B, A]`, root_value `[B]` (env units, for the player to move),
    visit_counts `[B, A]` int32, depth `[B]` mean depth of the simulations (float32)."""

    action: IntArray
    policy_target: FloatArray
    root_value: FloatArray
    visit_counts: IntArray
    depth: FloatArray


class GameId(NamedTuple):
    """Identity of a game segment: unique for ever within a run, so adding it twice can be refused."""

    actor: int
    incarnation: int
    seq: int


@dataclass(frozen=True)
class GameHistory:
    """A game, or a segment of a long one.

    Position `t` (0 <= t < T) is the state in which `actions[t]` was chosen. A segment *owns* its first `owned`
    positions (replay draws only those); the rest is overlap, also owned by the next segment, so that targets
    K + n steps on can be formed across the cut. `owned == T` when the segment ends its game.

    observations: `[context + T + 1, *frame]`, each frame once; the frame of position t is `observations[context + t]`.
    context: frames before position 0, for stacking (0 at a game's start; missing frames are zeros).
    actions: `[T]` int32. rewards: `[T]` float32, raw env units, `rewards[t]` is what `actions[t]` earned its player.
    to_play: `[T + 1]` int8. legal: `[T + 1, A]` bool (all False past a terminal state).
    policies: `[T, A]` float32, search policy targets. root_values: `[T + 1]` float32, search values for the player to
    move; the last is 0 if terminated, the value of the last state if truncated; if the segment was cut it is 0 and
    never read, thanks to the overlap.
    terminated / truncated: how the segment ended; both False when it was cut.
    version: the weights that played the first position.
    """

    id: GameId
    observations: Array
    context: int
    actions: IntArray
    rewards: FloatArray
    to_play: NDArray[np.int8]
    legal: BoolArray
    policies: FloatArray
    root_values: FloatArray
    owned: int
    terminated: bool
    truncated: bool
    version: WeightsVersion

    def __len__(self) -> int:
        """Number of steps T, overlap included."""
        return len(self.actions)


@dataclass(frozen=True)
class ItemKeys:
    """Which replay items a batch holds. game `[B]` int64 (insertion number, only grows), position `[B]` int32."""

    game: LongArray
    position: IntArray


@dataclass(frozen=True)
class Batch:
    """Training batch, ready for the learner. Values and rewards in env units.

    frames: `[B, N, C, H, W]` uint8 or `[B, N, D]` float32: the run of frames that each item needs, once, zeros where a
    game has none. N = stack, or stack + K when a consistency loss is used. stack: frames the network sees at once.
    actions: `[B, K]` int32 (random legal-range filler past the end).
    target_value, target_reward: `[B, K + 1]`; target_reward[:, 0] is 0 and unused.
    target_policy: `[B, K + 1, A]`. policy_mask: `[B, K + 1]` 0 past the end of the game (value and reward keep
    training towards 0: absorbing state). value_mask: `[B, K + 1]`, for value and reward, 0 only past a truncation,
    where nothing is known. observation_mask: `[B, K]` 1 where next_observations shows a real frame.
    weights: `[B]` importance weights, max 1. keys: for priority updates.
    """

    frames: Array
    stack: int
    actions: IntArray
    target_value: FloatArray
    target_reward: FloatArray
    target_policy: FloatArray
    policy_mask: FloatArray
    value_mask: FloatArray
    observation_mask: FloatArray
    weights: FloatArray
    keys: ItemKeys

    @property
    def observations(self) -> Array:
        """`[B, stack * C, H, W]` or `[B, stack * D]`: what the network sees at the root. A read-only view."""
        return stacked(self.frames, self.stack)[:, 0]

    @property
    def next_observations(self) -> Array | None:
        """`[B, K, ...]`: the same after each unrolled step, or None. A read-only view."""
        return stacked(self.frames, self.stack)[:, 1:] if self.frames.shape[1] > self.stack else None


def stacked(frames: Array, stack: int) -> Array:
    """Every `stack` successive frames joined along their first axis, oldest first; a read-only view.

    frames: `[B, N, C, *rest]`. Returns `[B, N - stack + 1, stack * C, *rest]`.
    """
    batch, count, channels, *rest = frames.shape
    shape = (batch, count - stack + 1, stack * channels, *rest)
    # The stack's channels are neighbours in memory already; the next stack begins one frame later.
    return as_strided(frames, shape, frames.strides, writeable=False)
