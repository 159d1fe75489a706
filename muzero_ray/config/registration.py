"""What a package of a user calls to add a kind of network, search or environment: see docs/plugins.md.

Each takes a class of settings and a builder. The class extends that of the section, and its field `kind` has the name
of the kind as type and default. The settings are known to the command line, to help, config files and checkpoints. A
builder may be given as "module:function": it is then imported when it is first needed, so that help need not load it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from muzero_ray.config.kinds import KindConfig, Kinds
from muzero_ray.config.learning import EnvConfig
from muzero_ray.config.network import NetworkConfig
from muzero_ray.config.search import SearchConfig

Section = TypeVar("Section", bound=KindConfig)


def register_network(settings: type[NetworkConfig], build: Callable[..., Any] | str) -> None:
    """Adds a kind of network.

    build: `(settings, observation_shape, num_actions, consistency) -> MuZeroNetwork`. observation_shape: stacked.
    consistency: whether the network needs its projection.

        mz.register_network(MyNetworkConfig, build_mine)
    """
    _register(NetworkConfig.kinds, NetworkConfig, settings, build)


def register_search(settings: type[SearchConfig], build: Callable[..., Any] | str) -> None:
    """Adds a kind of search.

    build: `(settings, discount) -> SearchFunction`. discount: per agent step, negative for two players.

        mz.register_search(MySearchConfig, build_mine)
    """
    _register(SearchConfig.kinds, SearchConfig, settings, build)


def register_environment(settings: type[EnvConfig], build: Callable[..., Any] | str) -> None:
    """Adds an adapter, a kind of environment.

    build: `(settings, *, evaluation, render) -> Environment`. evaluation: whole games are to be played. render:
    pictures are wanted.

        mz.register_environment(MyEnvConfig, build_mine)
    """
    _register(EnvConfig.kinds, EnvConfig, settings, build)


def _register(
    kinds: Kinds[Section], base: type[Section], settings: type[Section], build: Callable[..., Any] | str
) -> None:
    extends = isinstance(settings, type) and issubclass(settings, base) and settings is not base
    name = settings.model_fields["kind"].default if extends else None
    if not isinstance(name, str):
        raise TypeError(
            f"{getattr(settings, '__name__', settings)} cannot be registered as a kind of {kinds.section}: it must "
            f'extend {base.__name__}, and have a field such as `kind: Literal["mine"] = "mine"`'
        )
    known = kinds.find(name, installed=False)
    if known is not None and _place(known.settings) != _place(settings):
        raise ValueError(
            f"{kinds.section}.kind={name} is registered by {'.'.join(_place(known.settings))} already. Use another name"
        )
    kinds.add(settings, build)


def _place(settings: type[KindConfig]) -> tuple[str, str]:
    """A module that is imported anew registers its own classes again."""
    return settings.__module__, settings.__qualname__
