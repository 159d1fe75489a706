"""What the command line can ask for: one frozen command each. Knows neither how words are split nor what runs it."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt

from muzero_ray.config.running import LIMITS
from muzero_ray.config.schema import Config, FrozenConfig, Games, OpponentName, Simulations
from muzero_ray.config.validation import dotted, leaf_paths, validate
from muzero_ray.errors import ConfigError


@dataclass(frozen=True)
class TrainCommand:
    """config: complete and checked. preset: the one it started from. label: what the run's default name starts with.

    resume: go on with the run of that name, if there is one. seeds: of runs to make one after another; empty: the one
    that config says.
    """

    config: Config
    preset: str | None
    label: str
    resume: bool = False
    seeds: tuple[int, ...] = ()

    def each_seed(self) -> list[TrainCommand]:
        """One command for every run; those of several seeds have the seed in their names."""
        commands = []
        for seed in self.seeds or (self.config.run.seed,):
            name = f"{self.config.run.name}-s{seed}" if self.config.run.name and self.seeds else self.config.run.name
            run = self.config.run.model_copy(update={"seed": seed, "name": name})
            commands.append(replace(self, config=self.config.model_copy(update={"run": run}), seeds=()))
        return commands

    @property
    def default_name(self) -> str:
        """The run's name without the date."""
        return f"{self.label}-s{self.config.run.seed}"

    def new_folder(self) -> Path:
        """The run's folder. Without a name it is called after the time, unless the same command is to find it again."""
        run = self.config.run
        name = run.name or self.default_name + ("" if self.resume else time.strftime("-%Y%m%d-%H%M%S"))
        return Path(run.runs_dir) / name

    def resumed(self, run: Path, made_with: Config) -> ResumeCommand:
        """How to go on with `run`, whose configuration is `made_with`: limits may differ, and where the cluster is.

        Raises ConfigError if anything else does: it would be ignored.
        """
        asked, made = self.config.run, made_with.run
        free = {name: getattr(made, name) for name in (*LIMITS, "address", "name", "runs_dir")}
        # A run goes on seeing what it has seen, if it was made before there was a choice.
        env = self.config.env.model_copy(update={"scaling": made_with.env.scaling})
        same = self.config.model_copy(update={"run": asked.model_copy(update=free), "env": env})
        values = [(path, _value(same, path), _value(made_with, path)) for path in leaf_paths(Config)]
        if other := [(path, new, old) for path, new, old in values if new != old]:
            path, new, old = other[0]
            raise ConfigError(
                f"--resume: run {run} was started with {dotted(path)}={old} (got {new}; {len(other)} settings differ). "
                "Give what it was started with, or another --run.name"
            )
        changed = {name: value for name in LIMITS if (value := getattr(asked, name)) != getattr(made, name)}
        budget: dict[str, Any] = {option: changed.get(name) for name, option in LIMITS.items()}
        return ResumeCommand(run=run, address=asked.address, **budget)


@dataclass(frozen=True)
class SubmitCommand:
    """config: of the job's run, complete and checked. address: of the cluster's dashboard."""

    config: Config
    address: str

    @property
    def folder(self) -> Path:
        """The run's folder on the head node."""
        return Path(self.config.run.runs_dir) / str(self.config.run.name)


CheckpointName = Literal["best", "last"] | NonNegativeInt
"""One of a run's."""


class EvaluateCommand(FrozenConfig):
    """Play noise-free games with the newest weights of a run, and print the mean return."""

    run: Path
    """Folder of a run, or of one of its checkpoints."""
    checkpoint: CheckpointName | None = None
    """Which one: best (the highest score among those kept), last, or a learner step (none: last)."""
    episodes: Games | None = None
    """Games to play (none: `evaluation.final_episodes` of the run)."""
    seed: NonNegativeInt = 0
    """Seed of the first game."""
    opponent: OpponentName | None = None
    """Who has the other seat in a two-player game: random, minimax or mcts:N (none: as the run's evaluations)."""
    simulations: Simulations | None = None
    """Simulations per move of the run's search (none: as the run's evaluations)."""
    c_scale: PositiveFloat | None = None
    """How far values outweigh the policy in the run's Gumbel search (none: as the run's evaluations)."""
    as_json: Annotated[bool, Field(alias="json")] = False
    """Print one JSON object instead of a line."""


class ArenaCommand(FrozenConfig):
    """Let two play a board game against each other, on both sides, and tell their Elo difference."""

    players: tuple[str, str]
    """Each is the folder of a run or of a checkpoint, or random, minimax or mcts:N. At least one is a run: it says
    which game is played."""
    games: Games = 100
    """Games to play. Each pair of games begins alike, with sides changed."""
    seed: NonNegativeInt = 0
    """Seed of the openings, and of players that draw lots."""
    checkpoint: CheckpointName | None = None
    """Which one of each run: best (the highest score among those kept), last, or a learner step (none: last)."""
    opening_moves: NonNegativeInt = 2
    """Random moves that a game begins with: two networks without noise would play the same game each time."""
    as_json: Annotated[bool, Field(alias="json")] = False
    """Print one JSON object instead of lines."""


class ReportCommand(FrozenConfig):
    """What finished runs score together: mean, interquartile mean and its 95 % interval, for each task.

    Atari games are put together as human-normalised scores, too. Scores of different protocols are refused.
    """

    runs: Annotated[tuple[Path, ...], Field(min_length=1)]
    """Folders of runs, such as those of several seeds."""
    as_json: Annotated[bool, Field(alias="json")] = False
    """Print one JSON object instead of tables."""


class PlayCommand(FrozenConfig):
    """Let a run's newest weights play, and write the games as mp4."""

    run: Path
    """Folder of a run, or of one of its checkpoints."""
    checkpoint: CheckpointName | None = None
    """Which one: best (the highest score among those kept), last, or a learner step (none: last)."""
    episodes: Games = 1
    """Games to play."""
    seed: NonNegativeInt = 0
    """Seed of the first game."""
    video: Path | None = None
    """File to write (none: a new one in the run's `videos/`)."""


class ResumeCommand(FrozenConfig):
    """Go on with a stopped run from its newest good checkpoint. The options raise its budget."""

    run: Path
    """Folder of the run, or of one of its checkpoints."""
    iterations: PositiveInt | None = None
    """Learner steps in total, those before the stop included (none: as configured)."""
    episodes: PositiveInt | None = None
    """Self-play episodes in total (none: as configured)."""
    minutes: PositiveFloat | None = None
    """Wall clock in total, that before the stop included; start-up and final evaluations do not count (none: as
    configured)."""
    address: str | None = None
    """Ray cluster to join, from one of its nodes: auto or HOST:PORT (none: as configured)."""
    without_lost_games: bool = False
    """Go on without the games whose replay chunks are missing or damaged."""

    @staticmethod
    def settings() -> dict[str, str]:
        """The options that change a setting of `run`, and which."""
        return {option: name for name, option in LIMITS.items()} | {"address": "address"}

    @property
    def limits(self) -> dict[str, float | None]:
        """Those of `run` as they are asked for here; None: as configured."""
        return {name: getattr(self, option) for name, option in LIMITS.items()}

    def options(self) -> list[str]:
        """Those given, but for `--without-lost-games`, as words of a command line."""
        given = {name: getattr(self, name) for name in self.settings()}
        return [word for name, value in given.items() if value is not None for word in (f"--{name}", str(value))]

    def extended(self, config: Config) -> Config:
        """The run's configuration under the budget asked for here."""
        data = config.model_dump()
        wanted = {setting: getattr(self, option) for option, setting in self.settings().items()}
        data["run"].update({setting: value for setting, value in wanted.items() if value is not None})
        return validate(Config, data, {})


@dataclass(frozen=True)
class PresetsCommand:
    """List the presets."""


InspectCommand = EvaluateCommand | ArenaCommand | ReportCommand | PlayCommand
"""Commands that only read a run, which may be finished or stopped."""

Command = TrainCommand | ResumeCommand | SubmitCommand | PresetsCommand | InspectCommand


def _value(config: Config, path: Sequence[str]) -> Any:
    """None where the kind of a section does not have that setting."""
    value: Any = config
    for name in path:
        value = getattr(value, name, None)
    return value
