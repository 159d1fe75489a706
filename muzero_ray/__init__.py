"""MuZero: train a run, load its agent, act, evaluate. What a name needs is imported when the name is used first.

    import muzero_ray as mz

    run = mz.train("cartpole", {"learner.lr": 3e-3, "run.minutes": 1}, serial=True)
    agent = mz.Agent.load(run)
    score = mz.evaluate(run, episodes=100)

The algorithm is plain Python, numpy, torch and numba; only `actors`, `learner` and `launch` import Ray.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from muzero_ray.caches import make_cache_writable

if TYPE_CHECKING:
    from muzero_ray.agent import Agent
    from muzero_ray.api import evaluate, load_config, train
    from muzero_ray.config.registration import register_environment, register_network, register_search
    from muzero_ray.config.schema import Config
    from muzero_ray.runs.callbacks import STOP
    from muzero_ray.runs.run import Run

__all__ = [
    "STOP",
    "Agent",
    "Config",
    "Run",
    "evaluate",
    "load_config",
    "register_environment",
    "register_network",
    "register_search",
    "train",
]

_PLACES = {
    "Agent": "muzero_ray.agent",
    "Config": "muzero_ray.config.schema",
    "Run": "muzero_ray.runs.run",
    "STOP": "muzero_ray.runs.callbacks",
    "evaluate": "muzero_ray.api",
    "load_config": "muzero_ray.api",
    "register_environment": "muzero_ray.config.registration",
    "register_network": "muzero_ray.config.registration",
    "register_search": "muzero_ray.config.registration",
    "train": "muzero_ray.api",
}


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    with make_cache_writable():
        value = globals()[name] = getattr(import_module(_PLACES[name]), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
