"""Versions of config files. What an older program wrote is converted, step by step; what a newer one wrote is refused.

A run's `config.yaml` says its version. A file without one was written by a person, or before there were versions: it is
read as version 1, and may use the names of any version.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from muzero_ray.config.renamed import IN_VERSION_2, Setting, given_twice, renaming
from muzero_ray.config.validation import KeyPath, dotted, shown
from muzero_ray.config.yaml_file import Loaded
from muzero_ray.errors import ConfigError

KEY = "version"
"""The key of a config file that says its version."""


class NewerVersion(ConfigError):
    """A newer program wrote the file."""


def convert(loaded: Loaded) -> Loaded:
    """The same settings as this version writes them, without `version`; `changes` lists what was converted.

    Raises NewerVersion, and ConfigError for a version that is not one or a setting that is given under two names.
    """
    version, place = _version(loaded), loaded.where.get((KEY,), "")
    if version > VERSION:
        raise NewerVersion(
            f"{place}: {KEY}: the file was written by a newer muzero_ray (got version {version}; this one reads up to "
            f"{VERSION}). Update muzero_ray"
        )
    data = {key: value for key, value in loaded.data.items() if key != KEY}
    result = Loaded(data, {key: line for key, line in loaded.where.items() if key != (KEY,)})
    for to_next in _CONVERTERS[version - 1 :]:
        result = to_next(result)
    return result


def _version(loaded: Loaded) -> int:
    version = loaded.data.get(KEY, 1)
    if not isinstance(version, int) or isinstance(version, bool) or version < 1:
        raise ConfigError(
            f"{loaded.where[KEY,]}: {KEY}: must be a whole number from 1 on (got {shown(version)}). Write {KEY}: "
            f"{VERSION}, or delete the line"
        )
    return version


def _from_1_to_2(loaded: Loaded) -> Loaded:
    """Learner steps have one name everywhere, and what the learner gets is in its own section."""
    for old, new in IN_VERSION_2.items():
        loaded = _renamed(loaded, old, new)
    return loaded


_CONVERTERS: tuple[Callable[[Loaded], Loaded], ...] = (_from_1_to_2,)
"""One for each version but the last: from that one to the next."""

VERSION = len(_CONVERTERS) + 1
"""The version of the config files that this program writes."""


def _renamed(loaded: Loaded, old: Setting, new: Setting) -> Loaded:
    """`loaded` with the value of `old` under `new`, where `old` is given."""
    data, where = loaded.data, loaded.where
    if old not in where or not isinstance(data.get(new[0], {}), Mapping):
        return loaded  # a section that is not one is reported when the settings are checked
    if new in where:
        raise ConfigError(f"{where[old]}: {given_twice(dotted(old), dotted(new))}")
    section = {name: value for name, value in data[old[0]].items() if name != old[1]}
    moved: dict[str, Any] = {**data, old[0]: section}
    moved[new[0]] = {**moved.get(new[0], {}), new[1]: data[old[0]][old[1]]}
    places = {_moved(path, old, new): line for path, line in where.items()}
    return Loaded(moved, places, (*loaded.changes, renaming(dotted(old), dotted(new))))


def _moved(path: KeyPath, old: Setting, new: Setting) -> KeyPath:
    return (*new, *path[len(old) :]) if path[: len(old)] == old else path
