"""The parts of a configuration that say what is learned and how; `schema` has the whole.

Every field's docstring is its help text on the command line. Only literals, numbers and strings live here, so that
`--help` needs neither torch nor ray.
"""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt, model_validator

from muzero_ray.config.base import Cpus, Fraction, FrozenConfig, KwargValue, Simulations, Threads
from muzero_ray.config.kinds import KindConfig, Kinds


class AtariConfig(FrozenConfig):
    """Preprocessing of ALE games (ignored by other kinds)."""

    image_size: Annotated[int, Field(ge=16, le=256)] = 96
    """Frames are resized to this many pixels on each side."""
    grayscale: bool = True
    """One channel a frame instead of three (RGB)."""
    frame_skip: PositiveInt = 4
    """Emulator frames per agent step, max-pooled over the last two."""
    sticky_actions: Fraction = 0.25
    """Probability that the emulator repeats the previous action."""
    noop_max: NonNegativeInt = 0
    """Up to this many no-ops at the start of a game (0: none; sticky actions already vary games)."""
    fire_to_start: bool = False
    """FIRE stands in for the first action of each life, where the game has that button: it serves the ball."""
    terminal_on_life_loss: bool = False
    """In training only, end a game's targets at each lost life; the game itself goes on."""


class EnvConfig(KindConfig):
    """Which environment, and how it is seen."""

    kinds: ClassVar[Kinds[EnvConfig]] = Kinds("env", default="gymnasium")

    kind: str = "gymnasium"
    """Adapter. `gymnasium` takes any id, `my_pkg:MyEnv-v0` included; `atari` an ALE game; `openspiel` a board game."""
    id: Annotated[str, Field(min_length=1)] = "CartPole-v1"
    """Gymnasium id, ALE game name (Breakout), or OpenSpiel game string (tic_tac_toe)."""
    kwargs: dict[str, KwargValue] = {}  # noqa: RUF012 (pydantic copies it)
    """Extra keyword arguments of the environment; lists, dicts and null, too: 'config={lanes: 3}' 'sizes=[1, 2]'."""
    channels: Literal["auto", "first", "last"] = "auto"
    """Which of three axes of an image are its channels. `auto`: the first if it is the shortest, else the last."""
    scaling: Literal["bounds", "bytes"] = "bounds"
    """`bounds`: integers are scaled by the bounds of their space. `bytes`: uint8 by 255, others not, as in runs that
    were made before this setting."""
    instances: PositiveInt | None = None
    """How many environments can exist at a time (none: any number). Set it to 1 for a game server, with --serial and
    --actors.envs-per-actor 1."""
    frame_stack: Annotated[int, Field(gt=0, le=1024)] = 1
    """Newest frames the network sees at once; missing ones at the start of a game are zeros."""
    max_moves: PositiveInt | None = None
    """Truncate games after this many agent steps (none: the environment's own limit; evaluations of an environment
    that names none are cut after 27,000)."""
    opening_moves: NonNegativeInt = 0
    """Games of self-play begin after up to this many random moves, so that they differ (openspiel)."""
    atari: AtariConfig = AtariConfig()
    """Preprocessing, for `atari` only."""


for _kind in ("gymnasium", "atari", "openspiel"):
    EnvConfig.kinds.add(EnvConfig, f"muzero_ray.envs.registry:build_{_kind}", _kind)


class ReplayConfig(FrozenConfig):
    """Sizes count transitions (agent steps), never frames or games."""

    capacity: Annotated[int, Field(gt=0, le=1_000_000_000)] = 1_000_000
    """Transitions kept; the oldest games leave first."""
    capacity_bytes: PositiveInt = 4_000_000_000
    """Memory the stored games may take; whichever limit is reached first holds."""
    min_size: PositiveInt = 2_000
    """The learner waits for this many."""
    samples_per_insert: Annotated[float, Field(gt=0.0, le=1e6)] = 4.0
    """Replay ratio: how often each transition is trained on. Enforced, so curves do not depend on machine speed."""
    priority_alpha: NonNegativeFloat = 1.0
    """Exponent of |root value - n-step target| (0: uniform sampling)."""
    priority_beta: Fraction = 0.4
    """Importance-sampling exponent at the start, annealed to 1 over training."""
    segment_length: PositiveInt = 400
    """Longer games are cut into segments of this many steps."""
    holdout: Annotated[float, Field(ge=0.0, le=0.5)] = 0.02
    """Share of games (or segments) that are kept but never trained on, to measure the learned model on them: see the
    metrics `model/` (0: none)."""
    shards: PositiveInt = 1
    """Processes that hold the replay, each its share of the capacity and the games of its own actors. Use several
    where one cannot keep up with many actors."""

    @model_validator(mode="after")
    def _fits(self) -> ReplayConfig:
        if self.min_size > self.capacity:
            raise ValueError(
                f"min_size={self.min_size} is above capacity={self.capacity}: the learner would wait for ever. "
                "Lower min_size or raise capacity"
            )
        if self.shards > 1 and self.capacity // self.shards < self.segment_length:
            raise ValueError(
                f"shards={self.shards} leaves each {self.capacity // self.shards} of capacity={self.capacity}, less "
                f"than one segment (segment_length={self.segment_length}). Use fewer shards or raise capacity"
            )
        return self


class LearnerConfig(FrozenConfig):
    """Targets, loss and optimizer."""

    device: Annotated[str, Field(pattern=r"^(auto|cpu|cuda(:\d+)?|mps)$")] = "auto"
    """`auto`: cuda if there is one, else cpu. With several workers, or on a cluster, only GPUs count that
    `learner.gpus` reserves."""
    cpus: Cpus = 0.5
    """CPUs Ray reserves for the learner, for each of its workers."""
    gpus: Annotated[float, Field(ge=0.0, le=1024.0)] = 0.0
    """GPUs Ray reserves for the learner, for each of its workers."""
    threads: Threads = 1
    """Torch threads of the learner on CPU."""
    precision: Literal["auto", "float32", "bf16"] = "float32"
    """`bf16` runs forward passes under autocast; weights stay float32. `auto`: bf16 where the CPU or GPU has
    instructions for it."""
    batch_size: PositiveInt = 128
    """Positions per learner step."""
    workers: PositiveInt = 1
    """Processes that train together, each on its share of every batch; gradients are averaged, so the update is that of
    the whole batch. Each gets `cpus` and `gpus` of its own: for several GPUs."""
    unroll_steps: Annotated[int, Field(gt=0, le=1000)] = 5
    """K: steps the dynamics is unrolled and trained on behind each position."""
    td_steps: PositiveInt = 10
    """n of the n-step value target, in agent steps."""
    discount: Annotated[float, Field(gt=0.0, le=1.0)] = 0.997
    """Discount per agent step."""
    optimizer: Literal["adamw", "sgd"] = "adamw"
    """`sgd` is the paper's, with `momentum`."""
    lr: PositiveFloat = 1e-3
    """Learning rate after the warm-up."""
    lr_schedule: Literal["constant", "cosine"] = "cosine"
    """`cosine` decays to `lr_final` x lr at the last step."""
    lr_final: Fraction = 0.1
    """Share of `lr` left at the last step (cosine)."""
    warmup_steps: NonNegativeInt = 100
    """Linear warm-up of the learning rate."""
    momentum: Fraction = 0.9
    """Momentum of sgd."""
    weight_decay: NonNegativeFloat = 1e-4
    """Applied to weights only, not to biases and normalisation."""
    max_grad_norm: PositiveFloat = 10.0
    """Gradients of a larger norm are scaled down to this."""
    value_weight: NonNegativeFloat = 0.25
    """Weight of the value loss, against 1 for the policy loss."""
    reward_weight: NonNegativeFloat = 1.0
    """Weight of the reward loss."""
    consistency_weight: NonNegativeFloat = 0.0
    """SimSiam consistency between predicted and observed latents; 2.0 is usual for pixels, 0 turns it off."""
    augmentation: tuple[Literal["shift", "intensity", "mirror"], ...] = ()
    """Random changes to images that are trained on: moved by some pixels, brighter or darker; left and right changed,
    for boards whose actions are their columns and that are worth the same in a mirror (connect_four)."""
    ema_decay: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.99
    """Moving average of the weights, used by reanalyze as target network."""
    max_skipped: PositiveInt = 20
    """Stop after this many non-finite learner steps in a row."""

    @model_validator(mode="after")
    def _fits(self) -> LearnerConfig:
        if self.batch_size % self.workers:
            raise ValueError(
                f"workers={self.workers} does not divide batch_size={self.batch_size}: the positions of one worker "
                "would count for more than those of another. Make batch_size a multiple of it"
            )
        if self.workers > 1 and (self.device == "mps" or ":" in self.device):
            raise ValueError(
                f"device={self.device} names one device only, for workers={self.workers}. Use auto, cuda or cpu: each "
                "worker then takes the GPU that Ray gives it"
            )
        return self


class ReanalyzeConfig(FrozenConfig):
    """Old games are searched again with newer weights."""

    ratio: Annotated[float, Field(ge=0.0, le=1e6)] = 0.0
    """Transitions re-searched per transition played (0: off)."""
    simulations: Simulations | None = None
    """Simulations of those searches (none: as self-play)."""
    shorten_steps: PositiveInt | None = None
    """For each this many learner steps between a game and its new search, its value targets count one reward less, down
    to one: old weights earned them (none: always `learner.td_steps`)."""
