"""From settings to an environment, and the names of the Atari games. Adapters are imported when they are needed."""

from __future__ import annotations

import difflib
import functools
from typing import Any

from muzero_ray.config.schema import EnvConfig, KwargValue
from muzero_ray.envs.crash_note import CrashNote
from muzero_ray.envs.environment import CheckedEnvironment, Environment, asked_to_end
from muzero_ray.envs.own_spaces import FrameSpaces, OwnSpaces
from muzero_ray.errors import ConfigError, EnvironmentFault, MuZeroRayError
from muzero_ray.types import EnvSpec
from muzero_ray.user_modules import raised


def make_environment(
    cfg: EnvConfig, *, evaluation: bool = False, render: bool = False, note: CrashNote | None = None
) -> CheckedEnvironment:
    """The environment of `cfg`: checked, and truncated after `cfg.max_moves` steps.

    evaluation: play whole games, that is, without `atari.terminal_on_life_loss` and `opening_moves`. render: `render()`
    gives pictures. note: told of every call into it, from its making on.
    Raises ConfigError if the environment is unknown or its spaces are not supported, EnvironmentFault if it fails
    while being made.
    """
    if note is not None:
        note.enter("making it", None, 0)
    build = EnvConfig.kinds.builder(cfg.kind)
    try:
        adapter: Environment = build(cfg, evaluation=evaluation, render=render)
    except MuZeroRayError:
        raise
    except (Exception, SystemExit) as error:  # whatever an adapter of somebody else raises
        if asked_to_end(error):
            raise
        raise EnvironmentFault(f"environment {cfg.id} could not be made: {raised(error)}") from error
    finally:
        if note is not None:
            note.leave()
    return CheckedEnvironment(adapter, max_moves=cfg.max_moves, note=note)


def describe_environment(cfg: EnvConfig) -> tuple[EnvSpec, OwnSpaces]:
    """What the environment of `cfg` shows and takes, here and in its own spaces. It is made, and no game is begun.

    Raises as `make_environment`.
    """
    environment = make_environment(cfg, evaluation=True)
    environment.close()
    spaces: OwnSpaces = getattr(environment.inner, "spaces", None) or FrameSpaces(environment.spec)
    return environment.spec, spaces


def build_atari(cfg: EnvConfig, *, evaluation: bool, render: bool) -> Environment:  # noqa: ARG001 (it always can)
    """The adapter of an ALE game."""
    game = resolve_game(cfg.id)
    from muzero_ray.envs.atari import AtariEnvironment

    life_loss = cfg.atari.terminal_on_life_loss and not evaluation
    return AtariEnvironment(game, cfg.atari, own_kwargs(cfg), life_loss=life_loss)


def build_openspiel(cfg: EnvConfig, *, evaluation: bool, render: bool) -> Environment:  # noqa: ARG001 (it never can)
    """The adapter of a board game."""
    from muzero_ray.envs.open_spiel import OpenSpielEnvironment

    return OpenSpielEnvironment(cfg.id, own_kwargs(cfg), opening_moves=0 if evaluation else cfg.opening_moves)


def build_gymnasium(cfg: EnvConfig, *, evaluation: bool, render: bool) -> Environment:  # noqa: ARG001 (no difference)
    """The adapter of a gymnasium environment."""
    from muzero_ray.envs.gymnasium_env import GymnasiumEnvironment

    kwargs = own_kwargs(cfg)
    return GymnasiumEnvironment(cfg.id, kwargs, render=render, channels=cfg.channels, scaling=cfg.scaling)


def own_kwargs(cfg: EnvConfig) -> dict[str, Any]:
    """`env.kwargs` for one environment, which may change them."""
    return {name: _own(value) for name, value in cfg.kwargs.items()}


def _own(value: KwargValue) -> Any:
    """A copy for one environment, which may change it; lists, as written, in place of the tuples of a frozen config."""
    if isinstance(value, tuple):
        return [_own(item) for item in value]
    return {name: _own(item) for name, item in value.items()} if isinstance(value, dict) else value


@functools.cache
def atari_games() -> tuple[str, ...]:
    """Names of all Atari games that one player can play, as `SpaceInvaders`, in alphabetical order."""
    import ale_py
    import gymnasium

    gymnasium.register_envs(ale_py)
    return tuple(sorted(name[4:-3] for name in gymnasium.registry if name.startswith("ALE/") and name.endswith("-v5")))


def resolve_game(name: str) -> str:
    """The game of `atari_games()` meant by `name`; case, `_`, `-`, blanks, `ALE/` and `-v5` do not matter.

    ConfigError with the nearest names if there is none.
    """
    by_key = {game.lower(): game for game in atari_games()}
    key = name.lower().removeprefix("ale/").removesuffix("-v5")
    key = "".join(character for character in key if character.isalnum())
    if key in by_key:
        return by_key[key]
    near = [by_key[match] for match in difflib.get_close_matches(key, by_key, n=3, cutoff=0.0)]
    raise ConfigError(
        f"env.id={name} is not one of the {len(by_key)} Atari games for one player. Nearest: {', '.join(near)}"
    )


def make_another(
    env: EnvConfig, *, evaluation: bool = False, render: bool = False, note: CrashNote | None = None
) -> Environment:
    """An environment of the kind that `probe` has made one of."""
    try:
        return make_environment(env, evaluation=evaluation, render=render, note=note)
    except EnvironmentFault as fault:
        if env.instances is not None:
            raise
        raise EnvironmentFault(
            f"{fault}. The first one could be made. If only so many can exist at a time, say how many: --env.instances "
            "1 --serial --actors.envs-per-actor 1"
        ) from fault
