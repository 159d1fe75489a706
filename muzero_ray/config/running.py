"""The sections `actors`, `evaluation` and `run` of a configuration; `schema` has the whole."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt

from muzero_ray.config.base import (
    Count,
    Cpus,
    FrozenConfig,
    Games,
    Minutes,
    ModuleName,
    OpponentName,
    Simulations,
    Threads,
)

CallbackName = Annotated[str, Field(pattern=r"^[A-Za-z_][\w.]*:[A-Za-z_]\w*$")]
"""MODULE:CLASS."""


class ActorsConfig(FrozenConfig):
    """Self-play actors: how many, what computes their networks, and what they may use."""

    count: Count = 2
    """Self-play actors."""
    envs_per_actor: Count = 8
    """Environments each actor steps side by side; their searches share network batches."""
    rollout_steps: Annotated[int, Field(gt=0, le=100_000)] = 400
    """Transitions that an actor plays per call, before it reports."""
    engine: Literal["auto", "torch", "compiled"] = "auto"
    """What computes the networks outside the learner. `compiled`: OpenVINO for resnet, loops compiled by numba for mlp;
    `auto`: `compiled`, or `torch` where OpenVINO is not installed or the network has other parts."""
    precision: Literal["auto", "float32", "bf16"] = "float32"
    """Precision of convolutional networks outside the learner. `auto`: bf16 on CPUs with AVX512-BF16 or AMX, else
    float32."""
    num_cpus: Cpus = 0.5
    """CPUs Ray reserves per self-play actor (fractions allowed)."""
    memory_limit: Annotated[float, Field(gt=0.0, le=1e6)] | None = None
    """GB that a self-play process may hold before it is replaced, so that an environment that leaks memory does not
    end the run (none: a quarter of its machine's memory)."""
    threads: Threads = 1
    """Threads that compute the network, per self-play, reanalyze or evaluator process."""


class EvaluationConfig(FrozenConfig):
    """Noise-free games with the newest weights."""

    interval_steps: PositiveInt = 2_000
    """Learner steps between evaluations during training."""
    episodes: Games = 10
    """Episodes of an evaluation during training."""
    final_episodes: Games = 20
    """Episodes of the evaluation that ends a run."""
    simulations: Simulations | None = None
    """Simulations per move (none: as self-play)."""
    c_scale: PositiveFloat | None = None
    """`search.c_scale` of evaluations (gumbel; none: as self-play). A larger one helps where values are accurate."""
    opponent: OpponentName = "random"
    """Opponent in two-player games: random, minimax (exact, for games small enough to solve), or mcts:N
    (OpenSpiel's MCTS with N simulations a move)."""
    video: bool = True
    """Write the first episode of the final evaluation as mp4."""


class RunConfig(FrozenConfig):
    """How long a run goes on, its name, and where its files go. The first limit that is reached ends it."""

    name: str | None = None
    """Folder under `runs_dir` (none: preset, seed and date)."""
    runs_dir: str = "runs"
    """Where the folders of runs are made."""
    seed: NonNegativeInt = 0
    """Seed of network weights, environments, searches and replay draws."""
    learner_steps: PositiveInt = 100_000
    """Learner steps; also the horizon of every schedule."""
    episodes: PositiveInt | None = None
    """Stop after this many self-play episodes."""
    minutes: Minutes | None = None
    """Stop after so many minutes of wall clock since the first move of self-play. Evaluations on the way count;
    start-up and the final evaluation come on top."""
    plugins: tuple[ModuleName, ...] = ()
    """Modules to import that register networks, searches or environments. Installed packages with an entry point in
    the group `muzero_ray.plugins` need not be listed."""
    serial: bool = False
    """One process, no Ray: reproducible to the byte."""
    address: str | None = None
    """Ray cluster to join, from one of its nodes: auto or HOST:PORT (none: start a private Ray on this machine)."""
    checkpoint_steps: PositiveInt = 1_000
    """Learner steps between checkpoints."""
    log_steps: PositiveInt = 100
    """Learner steps between rows of metrics.jsonl."""
    wandb: Literal["auto", "online", "offline", "disabled"] = "auto"
    """Mode of Weights & Biases. `auto`: online if WANDB_API_KEY is set, else offline."""
    wandb_project: str = "muzero_ray"
    """Project of Weights & Biases in which the run is shown."""
    callbacks: tuple[CallbackName, ...] = ()
    """Your classes to call at games, metrics, evaluations and checkpoints, such as my_pkg:MyCallback."""


LIMITS = {"learner_steps": "iterations", "episodes": "episodes", "minutes": "minutes"}
"""The limits in `run`, and the options of `resume` that raise them."""
