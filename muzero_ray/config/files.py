"""Config files: presets, and those of users; `runs.run_config` has those of runs."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from muzero_ray.config.kinds import kinds_of
from muzero_ray.config.plugins import import_plugins, named_plugins
from muzero_ray.config.schema import Config
from muzero_ray.config.validation import KeyPath, leaf_paths, nearest, shown, validate
from muzero_ray.config.versions import KEY, VERSION, convert
from muzero_ray.config.yaml_file import Loaded, dump_yaml, read_yaml
from muzero_ray.errors import ConfigError

BASE = "base"
"""The key of a config file that names the preset it builds on."""

WRITTEN_TOGETHER = {
    "search": {"kind", "pb_c_base", "pb_c_init", "considered_actions", "c_visit", "c_scale"},
    "network": {"kind", "hidden", "layers", "channels", "blocks", "head_channels"},
}
"""Settings of several kinds that are all in each `config.yaml` of a run from before each kind had its own."""


@dataclass(frozen=True)
class Preset:
    """One file of `configs/`. header: its opening comment, `#` removed; the first line is a title."""

    name: str
    path: Path
    header: str

    def note(self, key: str) -> str:
        """The `key: ...` line of the header, or ''."""
        match = re.search(rf"^{re.escape(key)}:[ \t]*(.*)$", self.header, re.MULTILINE)
        return match[1].strip() if match else ""


def read_config(path: Path) -> Loaded:
    """The settings of a config file: its own, and where it is silent those of the preset that its `base` names.

    Raises ConfigError for a base that is not there, or that builds on itself.
    """
    return _read_on_base(path, ())


def _read_on_base(path: Path, above: tuple[str, ...]) -> Loaded:
    """above: presets that build on this file, one on the other."""
    own, where, changes = convert(read_yaml(path))
    import_plugins(named_plugins(own))
    own = without_unread(own)
    if BASE not in own:
        return Loaded(own, where, changes)
    name, place = own.pop(BASE), where.pop((BASE,))
    names = [preset.name for preset in list_presets()]
    if name not in names:
        remedy = nearest(str(name), names)
        raise ConfigError(f"{place}: {BASE}: there is no preset of that name (got {shown(name)}). {remedy}")
    if name in above:
        raise ConfigError(f"{place}: {BASE}: {' builds on '.join([*above, name])}. Leave one of these out")
    data, places, _ = _read_on_base(preset_path(name), (*above, name))
    replaced = [path for path in leaf_paths(Config) if path in where]
    return Loaded(merged(data, own), {**without_items(places, replaced), **where}, changes)


def merged(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Sections are merged; a value of the same name, `env.kwargs` included, is replaced.

    Where a section changes its kind, settings that `base` has for its own kind alone are left out.
    """
    result = dict(base)
    for key, value in changes.items():
        if isinstance(value, dict) and key != "kwargs":
            below = result.get(key, {})
            section = Config.model_fields.get(key)
            if section is not None and (kinds := kinds_of(section.annotation)) is not None and "kind" in value:
                below = kinds.settings_for(value["kind"], below)
            result[key] = merged(below, value)
        else:
            result[key] = value
    return result


def without_unread(data: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of a file without those that its kinds of search and network do not have, if the program wrote it
    when a section held the settings of all kinds."""
    result = dict(data)
    for name, written in WRITTEN_TOGETHER.items():
        section, kinds = data.get(name), kinds_of(Config.model_fields[name].annotation)
        if kinds is not None and isinstance(section, dict) and written <= section.keys():
            result[name] = kinds.settings_for(section.get("kind", kinds.default), section, installed=False)
    return result


def without_items(places: Mapping[KeyPath, str], given: Collection[KeyPath]) -> dict[KeyPath, str]:
    """`places` but for those below one that is `given` anew: the items of a list are then not those of before."""
    return {key: place for key, place in places.items() if not any(key[: len(new)] == new for new in given)}


def load_config(path: Path) -> Config:
    """A config file of any origin: a preset, a user's, or a run's `config.yaml`."""
    data, where, _ = read_config(path)
    return validate(Config, data, where)


def dump_config(config: Config) -> str:
    """YAML with its version and every field written out; `load_config` of it gives an equal Config."""
    return dump_yaml({KEY: VERSION, **config.to_dict()})


def presets_folder() -> Path:
    """`configs/` of the checkout, to which the package has a link, or the package's copy in an installation."""
    folder = (Path(__file__).resolve().parents[1] / "configs").resolve()
    if not folder.is_dir():
        raise ConfigError(f"{folder}: the presets are missing. Reinstall muzero-ray, or use --config FILE")
    return folder


def list_presets() -> tuple[Preset, ...]:
    """All presets by name."""
    return tuple(
        Preset(path.stem, path, "\n".join(_header(path.read_text(encoding="utf-8"))))
        for path in sorted(presets_folder().glob("*.yaml"))
    )


def _header(text: str) -> Iterable[str]:
    for line in text.splitlines():
        if not line.startswith("#"):
            return
        yield line.removeprefix("#").strip()


def preset_path(name: str) -> Path:
    """File of a preset; ConfigError with the nearest name if there is none."""
    path = presets_folder() / f"{name}.yaml"
    names = [p.stem for p in sorted(presets_folder().glob("*.yaml"))]
    if name not in names:
        raise ConfigError(f"preset: there is no preset of that name (got {name!r}). {nearest(name, names)}")
    return path


def load_preset(name: str) -> Config:
    """Config of a preset."""
    return load_config(preset_path(name))
