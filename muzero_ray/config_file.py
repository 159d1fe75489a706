"""Config files: strict YAML in, `Config` out, and back. Every mistake is one `ConfigError` line with its place.

The YAML read here is what people expect it to be: `1e-3` is a number, `no` is text, `0123` and `12:30` are text, a key
given twice is a mistake, and there are no aliases or tags. A message reads
`file:line: dotted.key: reason (got value). remedy`.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple, TypeVar, get_args, get_origin

import yaml
from pydantic import BaseModel, ValidationError

from muzero_ray.config import Config
from muzero_ray.errors import ConfigError

KeyPath = tuple[str | int, ...]
"""Where a setting stands: `("learner", "lr")`, or `("network", "layers", 1)` for an item of a list."""
Scalar = bool | int | float | str | None
Model = TypeVar("Model", bound=BaseModel)

MAX_BYTES = 1 << 20
MAX_DEPTH = 16

_NULL = frozenset({"", "~", "null", "Null", "NULL"})
_TRUE = frozenset({"true", "True", "TRUE"})
_FALSE = frozenset({"false", "False", "FALSE"})
_INT = re.compile(r"[-+]?(0|[1-9][0-9]*(_[0-9]+)*)")
_FLOAT = re.compile(
    r"[-+]?(\.[0-9]+|(0|[1-9][0-9]*)(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)"
)


class Loaded(NamedTuple):
    """A parsed file: its settings, and for each of them `file:line`."""

    data: dict[str, Any]
    where: dict[KeyPath, str]


def parse_scalar(text: str) -> Scalar:
    """What an unquoted word means: null, a boolean, a number, or else the word itself. Raises ValueError if absurd."""
    if text in _NULL:
        return None
    if text in _TRUE or text in _FALSE:
        return text in _TRUE
    if _INT.fullmatch(text):
        return int(text)
    if _FLOAT.fullmatch(text):
        return float(text.lower().replace(".inf", "inf").replace(".nan", "nan"))
    return text


def nearest(word: str, options: Iterable[str]) -> str:
    """A remedy: the most similar option, or all of them if none is similar."""
    options = list(options)
    by_lower = {option.lower(): option for option in options}
    close = difflib.get_close_matches(word.lower(), by_lower, n=1, cutoff=0.6)
    return f"Did you mean {by_lower[close[0]]}?" if close else f"Choose from {', '.join(options)}"


def raise_all(messages: list[str]) -> None:
    """Raises one ConfigError that holds every message; does nothing without any."""
    if len(messages) > 1:
        raise ConfigError("\n  ".join([f"{len(messages)} settings can not be used:", *messages]))
    if messages:
        raise ConfigError(messages[0])


# --- YAML ---------------------------------------------------------------------------------------------------------


class _Loader(yaml.SafeLoader):
    """Refuses anchors, aliases, tags and deep nesting. Words stay text here: `parse_scalar` gives them a type."""

    yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012 (the name and type are PyYAML's)
    _depth = 0

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        event: Any = self.peek_event()  # type: ignore[no-untyped-call]
        if isinstance(event, yaml.AliasEvent) or event.anchor is not None:
            raise yaml.MarkedYAMLError(
                problem="anchors (&) and aliases (*) are not supported. Write the value out",
                problem_mark=event.start_mark,
            )
        if event.tag is not None:
            raise yaml.MarkedYAMLError(
                problem=f"tags are not supported (got {event.tag}). Remove it; put text in quotes",
                problem_mark=event.start_mark,
            )
        if self._depth >= MAX_DEPTH:
            raise yaml.MarkedYAMLError(
                problem=f"nested deeper than {MAX_DEPTH} levels. Settings are two or three levels deep",
                problem_mark=event.start_mark,
            )
        self._depth += 1
        node = super().compose_node(parent, index)
        self._depth -= 1
        return node


class _Dumper(yaml.SafeDumper):
    """Block mappings, one-line lists, no anchors; quotes whatever YAML 1.1, 1.2 or this file would not read as text."""

    def ignore_aliases(self, data: Any) -> bool:  # noqa: ARG002 (the signature is PyYAML's)
        return True


_Dumper.add_implicit_resolver("tag:yaml.org,2002:float", re.compile(rf"^(?:{_FLOAT.pattern})$"), list("-+.0123456789"))
_Dumper.add_representer(
    # Line breaks are written as escapes: PyYAML folds some of them (U+0085) into spaces otherwise.
    str,
    lambda dumper, text: dumper.represent_scalar("tag:yaml.org,2002:str", text, None if text.isprintable() else '"'),
)
_Dumper.add_representer(
    list, lambda dumper, items: dumper.represent_sequence("tag:yaml.org,2002:seq", items, flow_style=True)
)


def _read_text(path: Path) -> str:
    try:
        size = path.stat().st_size
        if path.is_dir():
            raise ConfigError(f"{path}: is a folder, not a config file. Give a file such as {path / 'config.yaml'}")
        if size > MAX_BYTES:
            raise ConfigError(f"{path}: is too large for a config file (got {size} bytes). The limit is {MAX_BYTES}")
        return path.read_bytes().decode("utf-8-sig")
    except FileNotFoundError:
        siblings = sorted(p.name for p in path.parent.glob("*.yaml")) if path.parent.is_dir() else []
        remedy = nearest(path.name, siblings) if siblings else "Check the path; presets are named without --config"
        raise ConfigError(f"{path}: there is no such config file. {remedy}") from None
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: is not UTF-8 text (byte {error.start}). Save it as UTF-8") from None
    except OSError as error:
        raise ConfigError(f"{path}: can not be read ({error.strerror}). Check the path and its permissions") from None


def _convert(node: yaml.Node, path: KeyPath, file: str, where: dict[KeyPath, str], problems: list[str]) -> Any:
    """Node -> plain data; notes the line of each key and list item, and collects what is wrong with keys."""
    if isinstance(node, yaml.SequenceNode):
        for index, item in enumerate(node.value):
            where[*path, index] = f"{file}:{item.start_mark.line + 1}"
        return tuple(_convert(item, (*path, i), file, where, problems) for i, item in enumerate(node.value))
    if isinstance(node, yaml.MappingNode):
        result: dict[str, Any] = {}
        for key_node, value_node in node.value:
            place = f"{file}:{key_node.start_mark.line + 1}"
            key = key_node.value
            plain = isinstance(key_node, yaml.ScalarNode) and key_node.style is None
            if not isinstance(key_node, yaml.ScalarNode) or (plain and not isinstance(parse_scalar(key), str)):
                problems.append(f"{place}: {dotted(path) or 'file'}: keys must be text. Name a setting, or use quotes")
                continue
            if key in result:
                first = where[*path, key].rpartition(":")[2]
                problems.append(f"{place}: {dotted((*path, key))}: given twice (first on line {first}). Remove one")
            where[*path, key] = place
            result[key] = _convert(value_node, (*path, key), file, where, problems)
        return result
    if not isinstance(node, yaml.ScalarNode) or node.style is not None:
        return node.value  # quoted: text
    try:
        return parse_scalar(node.value)
    except ValueError:  # Python's limit on the digits of an integer
        problems.append(f"{where[path]}: {dotted(path)}: number with {len(node.value)} digits. Write a shorter one")
        return None


def read_yaml(path: Path) -> Loaded:
    """Parses a config file. Raises ConfigError for anything but plain YAML of settings, with file and line."""
    text, file = _read_text(path), _short(path)
    problems: list[str] = []
    where: dict[KeyPath, str] = {}
    loader = None
    try:
        loader = _Loader(text)
        node = loader.get_single_node()
        if node is None:
            raise ConfigError(f"{file}: is empty. Write at least one section, such as 'env:' and below it '  id: ...'")
        data = _convert(node, (), file, where, problems)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        problem = (error.problem or "not YAML").rstrip(".")
        remedy = "" if ". " in problem else ". Check indentation (spaces, no tabs), colons and quotes around this line"
        raise ConfigError(f"{file}:{mark.line + 1 if mark else 1}: {problem}{remedy}") from None
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise ConfigError(
            f"{file}:{line}: unprintable character U+{ord(text[error.position]):04X}. Remove it"
        ) from None
    finally:
        if loader is not None:
            loader.dispose()
    raise_all(problems)
    if not isinstance(data, dict):
        raise ConfigError(
            f"{file}:1: must be sections of settings (got {_shown(data)}). Start with a line such as 'env:'"
        )
    return Loaded(data, where)


# --- validation ---------------------------------------------------------------------------------------------------

_REASONS = {
    "int_type": ("must be a whole number", "Write one such as 3"),
    "float_type": ("must be a number", "Write one such as 0.5"),
    "bool_type": ("must be true or false", "Write true or false"),
    "string_type": ("must be text", "Put it in quotes"),
    "finite_number": ("must be finite", "Write an ordinary number"),
    "tuple_type": ("must be a list", "Write it as [1, 2]"),
    "dict_type": ("must be a section of names and values", "Write 'name: value' lines below it, indented"),
    "model_type": ("must be a section of settings", "Write 'name: value' lines below it, indented, or delete the line"),
    "string_too_short": ("must not be empty", "Write a name"),
    "missing": ("is missing", "Add it"),
}
_LIMITS = {"gt": "above", "ge": "at least", "lt": "below", "le": "at most"}
_FORMS = {"learner.device": "auto, cpu, cuda, cuda:0 (or another number) or mps"}


def validate(model: type[Model], data: Mapping[str, Any], where: Mapping[KeyPath, str]) -> Model:
    """Builds `model` from plain data. Raises ConfigError with every mistake and its place.

    Types are strict (text is no number, 1 is no boolean), except that 1e6 and 3.0 do for whole numbers.
    where: place of each key (`file:line`, or the option on the command line); keys without one hold defaults.
    """
    try:
        return model.model_validate(data, strict=True)
    except ValidationError as error:
        found = error.errors(include_url=False)
    whole = [e for e in found if e["type"] == "int_type" and isinstance(e["input"], float) and e["input"].is_integer()]
    if whole:
        for e in whole:
            data = _with(data, e["loc"], int(e["input"]))
        return validate(model, data, where)
    messages: dict[KeyPath | str, str] = {}
    for e in found:
        if e["type"] == "value_error":
            text = _across(model, str(e["ctx"]["error"]), e["loc"], where)
            messages[text] = text
        else:
            path = _reachable(e["loc"], data, e["type"])
            messages.setdefault(path, _message(model, path, e, where))
    raise_all(list(messages.values()))
    raise AssertionError("pydantic refused the settings without an error")


def _message(model: type[BaseModel], path: KeyPath, e: Any, where: Mapping[KeyPath, str]) -> str:
    kind, ctx, value, name = e["type"], e.get("ctx", {}), e["input"], dotted(path)
    limit = next((key for key in _LIMITS if key in ctx), None)
    if kind == "extra_forbidden":
        reason, remedy = "unknown key", _nearest_key(model, path)
    elif len(path) < len(e["loc"]) and kind != "missing":  # a union: one error per member
        reason, remedy = "has a type that is not supported", "Write true, false, a number or text"
    elif limit is not None:
        reason = f"must be {_LIMITS[limit]} {ctx[limit]}"
        remedy = f"Use a value {_LIMITS[limit]} {ctx[limit]}"
    elif kind == "literal_error":
        choices = ctx["expected"].replace("'", "").replace(" or ", ", ").split(", ")
        reason, remedy = f"must be one of {', '.join(choices)}", nearest(str(value), choices)
    elif kind in ("missing", "too_long", "too_short") and isinstance(value, tuple):
        count = _arity(_section(model, path[:-1]).model_fields[str(path[-1])].annotation)
        reason, remedy = f"must hold {count} values", f"Write {count} of them"
    elif kind == "string_pattern_mismatch":
        reason, remedy = "is not of the expected form", f"Use {_FORMS.get(name, ctx['pattern'])}"
    else:
        reason, remedy = _REASONS.get(kind, (e["msg"], "See --help for what it may be"))
    got = "" if kind == "missing" and not isinstance(value, tuple) else f" (got {_shown(value)})"
    place = _place(path, where)
    named = place.replace("-", "_") == f"__{name}: "  # the option says which setting it is
    return f"{place}{'' if named else f'{name}: '}{reason}{got}. {remedy}"


def _across(model: type[BaseModel], text: str, loc: KeyPath, where: Mapping[KeyPath, str]) -> str:
    """A cross-field message, with whole dotted keys, at the place of the key it names that the user set."""
    fields = _section(model, loc).model_fields
    text = re.sub(r"(?<![\w.])(\w+)=", lambda m: f"{dotted((*loc, m[1]))}=" if m[1] in fields else m[0], text)
    named = [tuple(key.split(".")) for key in re.findall(r"([a-z_]+(?:\.[a-z_]+)*)=", text)]
    # What was typed on the command line is newer than what a file says: blame that first.
    given = sorted((path for path in named if path in where), key=lambda path: not where[path].startswith("-"))
    return f"{_place(given[0], where) if given else ''}{text}"


def _arity(annotation: Any) -> int:
    """Length of a fixed-length list setting."""
    members = get_args(annotation)
    return len(members) if get_origin(annotation) is tuple else _arity(members[0])


def _nearest_key(model: type[BaseModel], path: KeyPath) -> str:
    """The sibling that was probably meant, or the same name in another section."""
    section = _section(model, path[:-1])
    word = str(path[-1]).replace("-", "_").lower()
    if close := difflib.get_close_matches(word, section.model_fields, n=1, cutoff=0.6):
        return f"Did you mean {dotted((*path[:-1], close[0]))}?"
    elsewhere = {key[-1]: dotted(key) for key in reversed(leaf_paths(model))}
    if close := difflib.get_close_matches(word, elsewhere, n=1, cutoff=0.8):
        return f"Did you mean {elsewhere[close[0]]}?"
    return f"Choose from {', '.join(section.model_fields)}"


def _section(model: type[BaseModel], path: KeyPath) -> type[BaseModel]:
    for key in path:
        model = model.model_fields[str(key)].annotation  # type: ignore[assignment]
    return model


def leaf_paths(model: type[BaseModel], prefix: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    """Path of each setting below `model`, sections left out."""
    paths: list[tuple[str, ...]] = []
    for name, field in model.model_fields.items():
        section = is_section(field.annotation)
        paths += leaf_paths(field.annotation, (*prefix, name)) if section else [(*prefix, name)]  # type: ignore[arg-type]
    return paths


def is_section(annotation: Any) -> bool:
    """Whether a field holds a section of settings rather than a value."""
    return isinstance(annotation, type) and issubclass(annotation, BaseModel)


def dotted(path: Iterable[str | int]) -> str:
    """`("network", "layers", 1)` -> `network.layers[1]`."""
    return "".join(f"[{key}]" if isinstance(key, int) else f".{key}" for key in path).removeprefix(".")


def _place(path: KeyPath, where: Mapping[KeyPath, str]) -> str:
    while path and path not in where:
        path = path[:-1]
    return f"{where[path]}: " if path else ""


def _reachable(loc: KeyPath, data: Any, kind: str) -> KeyPath:
    """pydantic's location without what is no key of the data: the member of a union, or a list item that is missing."""
    path: list[str | int] = []
    for key in loc:
        try:
            data = data[key]
        except (KeyError, IndexError, TypeError):
            return (*path, key) if kind == "missing" and isinstance(data, Mapping) else tuple(path)
        path.append(key)
    return tuple(path)


def _with(data: Any, loc: KeyPath, value: Any) -> Any:
    """A copy of nested data with one value replaced."""
    if not loc:
        return value
    if isinstance(data, tuple):
        return tuple(_with(item, loc[1:], value) if i == loc[0] else item for i, item in enumerate(data))
    return {**data, loc[0]: _with(data[loc[0]], loc[1:], value)}


def _shown(value: Any) -> str:
    text = repr(list(value) if isinstance(value, tuple) else value)
    return text if len(text) <= 60 else text[:57] + "..."


def _short(path: Path) -> str:
    """Relative to the working directory where that is shorter to read."""
    try:
        return str(path.resolve().relative_to(Path.cwd()))
    except ValueError:
        return str(path)


# --- files and presets --------------------------------------------------------------------------------------------


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


def load_config(path: Path) -> Config:
    """A config file of any origin: a preset, a user's, or a run's `config.yaml`."""
    return validate(Config, *read_yaml(path))


def dump_config(config: Config) -> str:
    """YAML with every field written out; `load_config` of it gives an equal Config."""
    return yaml.dump(config.to_dict(), Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=1000)


def presets_folder() -> Path:
    """`configs/` of the checkout, or where an installation put it."""
    checkout = Path(__file__).resolve().parents[1] / "configs"
    if checkout.is_dir():
        return checkout
    for file in metadata.files("muzero-ray") or ():
        located = Path(str(file.locate())).resolve()
        if file.parent.name == "configs" and file.suffix == ".yaml" and located.is_file():
            return located.parent
    raise ConfigError(f"{checkout}: the presets are missing. Reinstall muzero-ray, or use --config FILE")


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
