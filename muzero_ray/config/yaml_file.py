"""Strict YAML: every mistake is one `ConfigError` line with its place.

The YAML read here is what people expect it to be: `1e-3` is a number, `no` is text, `0123` and `12:30` are text, a key
given twice is a mistake, and there are no aliases or tags. A message reads
`file:line: dotted.key: reason (got value). remedy`.
"""

from __future__ import annotations

import re
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from muzero_ray.config.validation import KeyPath, dotted, nearest, raise_all, shown
from muzero_ray.errors import ConfigError

Scalar = bool | int | float | str | None

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
    """A parsed file: its settings, and for each of them `file:line`. changes: what it calls by old names."""

    data: dict[str, Any]
    where: dict[KeyPath, str]
    changes: tuple[str, ...] = ()


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
        if path.is_dir():
            raise ConfigError(f"{path}: is a folder, not a config file. Give a file such as {path}/config.yaml")
        if not stat.S_ISREG(path.stat().st_mode):
            raise ConfigError(f"{path}: is a pipe or device, not a config file. Save it as a file")
        size = path.stat().st_size
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
        raise ConfigError(f"{path}: cannot be read ({error.strerror}). Check the path and its permissions") from None


def _short(path: Path) -> str:
    """Relative to the working directory where that is shorter to read."""
    try:
        return str(path.resolve().relative_to(Path.cwd()))
    except ValueError:
        return str(path)


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
            f"{file}:1: must be sections of settings (got {shown(data)}). Start with a line such as 'env:'"
        )
    return Loaded(data, where)


def parse_value(text: str) -> Any:
    """What a value means that is not in a file: a word, as `parse_scalar` reads it, or a list, a dict or text in
    quotes, as YAML writes them on one line: `[1, 2]`, `{lanes: 3}`, `'007'`. Raises ConfigError."""
    if not text.startswith(("[", "{", "'", '"')):
        return parse_scalar(text)
    problems: list[str] = []
    loader = None
    try:
        loader = _Loader(text)
        node: Any = loader.get_single_node()
        _refuse_lone_keys(node)
        value = _convert(node, (), "here", {(): "here"}, problems)
    except yaml.MarkedYAMLError as error:
        column = f" at character {error.problem_mark.column + 1}" if error.problem_mark else ""
        raise ConfigError(
            f"{shown(text)} is not a list, a dict or quoted text{column}: {(error.problem or 'not YAML').rstrip('.')}"
        ) from None
    except yaml.reader.ReaderError as error:
        raise ConfigError(f"{shown(text)} holds an unprintable character (U+{ord(text[error.position]):04X})") from None
    finally:
        if loader is not None:
            loader.dispose()
    raise_all(problems)
    return value


def _refuse_lone_keys(node: yaml.Node) -> None:
    """YAML reads `{lanes:3}` as a key "lanes:3" without a value."""
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            if isinstance(value, yaml.ScalarNode) and not value.value and value.style is None:
                raise yaml.MarkedYAMLError(
                    problem=f"{key.value} has no value. Write `name: value`, with a blank behind the colon",
                    problem_mark=key.start_mark,
                )
            _refuse_lone_keys(value)
    elif isinstance(node, yaml.SequenceNode):
        for item in node.value:
            _refuse_lone_keys(item)


def dump_yaml(data: Mapping[str, Any]) -> str:
    """YAML that `read_yaml` reads back as the same data."""
    return yaml.dump(data, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=1000)
