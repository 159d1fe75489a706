"""`launch.py evaluate`, `arena`, `play` and `report`: finished runs, in this process."""

from __future__ import annotations

import json
import math
import time
from dataclasses import replace
from pathlib import Path

import torch

from muzero_ray.agent import Agent
from muzero_ray.cli.commands import ArenaCommand, EvaluateCommand, InspectCommand, PlayCommand, ReportCommand
from muzero_ray.cli.report import report_runs
from muzero_ray.config.schema import OPPONENT
from muzero_ray.config.validation import shown
from muzero_ray.envs.chance import seed_generators
from muzero_ray.envs.registry import make_environment
from muzero_ray.errors import ConfigError, MuZeroRayError
from muzero_ray.evaluation.arena import BotPlayer, Match, NetworkPlayer, Player, play_match
from muzero_ray.evaluation.episodes import EpisodesProgress
from muzero_ray.evaluation.evaluator import Evaluator
from muzero_ray.evaluation.opponents import make_opponent
from muzero_ray.evaluation.policies import search_policy
from muzero_ray.evaluation.result import Evaluation
from muzero_ray.runs.folder import run_folder
from muzero_ray.runs.layout import RunLayout
from muzero_ray.runs.run import Run, WhichCheckpoint, open_checkpoint
from muzero_ray.standard_streams import print_error, print_result
from muzero_ray.user_paths import writing_result

SIDES = {"first": slice(0, None, 2), "second": slice(1, None, 2)}
"""Who moved first, and which games those were."""


WATCH_SECONDS = 10.0


def inspect_runs(command: InspectCommand) -> None:
    """Run one of these commands."""
    match command:
        case EvaluateCommand():
            evaluate_run(command)
        case ArenaCommand():
            play_arena(command)
        case ReportCommand():
            report_runs(command)
        case PlayCommand():
            play_run(command)


def trained_evaluator(
    source: Run | Path, which: WhichCheckpoint | None = None, **settings: object
) -> tuple[Agent, Evaluator]:
    """A trained agent, and what measures it. settings: of its evaluations, in place of the run's own (None: as there).

    which: of the checkpoints; None is the newest, or the one that `source` names.
    """
    config, checkpoint = open_checkpoint(source, "last" if which is None else which, read="weights")
    config = config.override({f"evaluation.{name}": value for name, value in settings.items() if value is not None})
    agent = Agent.of(config, checkpoint)
    return agent, Evaluator(config, agent.task, planner=agent.planner, chosen_by_score=which == "best")


class Watcher:
    """Says on stderr, every `WATCH_SECONDS`, how far an evaluation is."""

    def __init__(self) -> None:
        self._said_at = time.monotonic()

    def __call__(self, progress: EpisodesProgress) -> None:
        if time.monotonic() - self._said_at >= WATCH_SECONDS:
            self._said_at = time.monotonic()
            print_error(f"evaluation: {progress}")


def _tell_of_cut(evaluation: Evaluation) -> None:
    if note := evaluation.cut_note():
        print_error(f"warning: {note}")


def evaluate(command: EvaluateCommand) -> tuple[Agent, Evaluation]:
    """Play the games that `command` asks for; returns who played, and the score."""
    agent, evaluator = trained_evaluator(
        command.run,
        command.checkpoint,
        opponent=command.opponent,
        simulations=command.simulations,
        c_scale=command.c_scale,
    )
    torch.set_num_threads(agent.config.learner.threads)
    episodes = command.episodes or agent.config.evaluation.final_episodes
    evaluation = evaluator.evaluate(episodes=episodes, seed=command.seed, watch=Watcher())
    _tell_of_cut(evaluation)
    return agent, replace(evaluation, learner_step=agent.step)


def evaluate_run(command: EvaluateCommand) -> None:
    """Print the score of a run; the last line is for programs."""
    agent, evaluation = evaluate(command)
    if command.as_json:
        print_result(
            json.dumps(
                {
                    "return_mean": evaluation.mean,
                    "return_std": float(evaluation.returns.std()),
                    "episodes": len(evaluation.returns),
                    "env_steps": int(evaluation.lengths.sum()),
                    "returns": evaluation.returns.tolist(),
                    "cut": evaluation.cut,
                    "seed": command.seed,
                    "learner_step": agent.step,
                    "protocol": {**evaluation.protocol.as_dict(), "digest": evaluation.protocol.digest},
                }
            )
        )
        return
    print_result(f"checkpoint {agent.path}, protocol {evaluation.protocol.digest}: {evaluation.protocol.describe()}")
    if evaluation.protocol.opponent:
        for side, part in SIDES.items():
            won, drawn, lost = Match(evaluation.returns).counts(part)
            print_result(f"moving {side}: {won} won, {drawn} drawn, {lost} lost")
    print_result(evaluation.summary())


def play_arena(command: ArenaCommand) -> None:
    """Print who won how many games on which side, and the Elo difference."""
    names = [name for name in command.players if not OPPONENT.fullmatch(name)]
    agents = {name: trained_evaluator(Path(name), command.checkpoint)[0] for name in names}
    configs = [agents[name].config for name in names]
    if not configs:
        raise ConfigError(
            f"arena: one player must be a run, it says which game (got {shown(command.players)}). Name one"
        )
    if configs[0].env != configs[-1].env:
        games = f"{configs[0].env.id} and {configs[-1].env.id}"
        raise ConfigError(
            f"arena: the runs play different games, or under different rules (got {games}). Name two alike"
        )
    spec = agents[names[0]].task.spec
    if spec.num_players != 2:
        raise ConfigError(f"arena: a game for two is needed (got {spec.name}). Use evaluate")

    def player(number: int) -> Player:
        name = command.players[number]
        if name not in agents:
            return BotPlayer(make_opponent(name, command.seed + number))
        agent = agents[name]
        return NetworkPlayer(search_policy(agent.planner), spec, agent.config.env.frame_stack)

    seed_generators(command.seed, "arena")
    match = play_match(
        lambda: make_environment(configs[0].env, evaluation=True),
        (player(0), player(1)),
        games=command.games,
        seed=command.seed,
        opening_moves=command.opening_moves,
    )
    print_result(match_json(command, match) if command.as_json else match_lines(command, match))


def match_json(command: ArenaCommand, match: Match) -> str:
    """One object; an infinite Elo difference (all games won, or all lost) is null."""
    names = ("won", "drawn", "lost")
    sides = {side: dict(zip(names, match.counts(part), strict=True)) for side, part in SIDES.items()}
    elo = dict(zip(("elo", "elo_low", "elo_high"), match.elo(), strict=True))
    finite = {name: value if math.isfinite(value) else None for name, value in elo.items()}
    return json.dumps({"players": command.players, "games": command.games, "score": match.score, **sides, **finite})


def match_lines(command: ArenaCommand, match: Match) -> str:
    """One line a side; the last one is for programs."""
    lines = [f"{command.players[0]} against {command.players[1]}, openings of {command.opening_moves} random moves"]
    for side, part in SIDES.items():
        won, drawn, lost = match.counts(part)
        lines.append(f"moving {side}: {won} won, {drawn} drawn, {lost} lost")
    elo, low, high = match.elo()
    lines.append(
        f"score={match.score:.3f} elo={elo:+.0f} elo_low={low:+.0f} elo_high={high:+.0f} games={command.games}"
    )
    return "\n".join(lines)


def play_run(command: PlayCommand) -> None:
    """Let a run play; writes one mp4 per episode where the environment renders."""
    agent, evaluator = trained_evaluator(command.run, command.checkpoint)
    videos = RunLayout(run_folder(command.run)).videos_folder
    for episode in range(command.episodes):
        evaluation = evaluator.evaluate(episodes=1, seed=command.seed + episode, record=True, watch=Watcher())
        _tell_of_cut(evaluation)
        if evaluation.video is None:
            raise MuZeroRayError(f"{agent.config.env.id} has no rgb_array rendering, so there is nothing to watch")
        path = command.video or videos / f"play-{agent.step}-seed{command.seed + episode}.mp4"
        if command.video and command.episodes > 1:
            path = path.with_stem(f"{path.stem}-{episode}")
        with writing_result(path, "--video"):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(evaluation.video)
        print_result(f"return={evaluation.mean:g} length={int(evaluation.lengths[0])} video={path}")
