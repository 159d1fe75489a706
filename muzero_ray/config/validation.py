"""Plain data in, a checked settings model out. Every mistake is one `ConfigError` line with its place.

A message reads `place: dotted.key: reason (got value). remedy`; the place is a file and line, or an option as typed.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping
from typing import Any, TypeVar, get_args, get_origin

from pydantic import BaseModel, ValidationError

from muzero_ray.config.kinds import fields_of, kinds_of
from muzero_ray.config.renamed import RENAMED
from muzero_ray.errors import ConfigError

KeyPath = tuple[str | int, ...]
"""Where a setting stands: `("learner", "lr")`, or `("network", "layers", 1)` for an item of a list."""
Model = TypeVar("Model", bound=BaseModel)

_REASONS = {
    "int_type": ("must be a whole number", "Write one such as 3"),
    "float_type": ("must be a number", "Write one such as 0.5"),
    "bool_type": ("must be true or false", "Write true or false"),
    "string_type": ("must be text", "Put it in quotes"),
    "finite_number": ("must be finite", "Write an ordinary number"),
    "tuple_type": ("must be a list", "Write it as [1, 2]"),
    "dict_type": ("must be a section of names and values", "Write 'name: value' lines below it, indented"),
    "model_type": ("must be a section of settings", "Write 'name: value' lines below it, indented, or delete the line"),
    "string_unicode": ("must be Unicode text", "Write it in UTF-8"),
    "string_too_short": ("must not be empty", "Write a name"),
    "missing": ("is missing", "Add it"),
}
_LIMITS = {"gt": "above", "ge": "at least", "lt": "below", "le": "at most"}
_FORMS = {
    "run.plugins": "names of packages, such as my_pkg or my_pkg.networks",
    "learner.device": "auto, cpu, cuda, cuda:0 (or another number) or mps",
    "checkpoint": "best, last or the learner step of a checkpoint",
    "run.callbacks": "a module and a class in it, such as my_pkg:MyCallback",
    "opponent": "random, minimax or mcts:N, such as mcts:100",
    "evaluation.opponent": "random, minimax or mcts:N, such as mcts:100",
}


def nearest(word: str, options: Iterable[str]) -> str:
    """A remedy: the most similar option, or all of them if none is similar."""
    options = list(options)
    by_lower = {option.lower(): option for option in options}
    close = difflib.get_close_matches(word.lower(), by_lower, n=1, cutoff=0.6)
    return f"Did you mean {by_lower[close[0]]}?" if close else f"Choose from {', '.join(options)}"


def raise_all(messages: list[str]) -> None:
    """Raises one ConfigError that holds every message; does nothing without any."""
    if len(messages) > 1:
        raise ConfigError("\n  ".join([f"{len(messages)} settings cannot be used:", *messages]))
    if messages:
        raise ConfigError(messages[0])


def validate(
    model: type[Model], data: Mapping[str, Any], where: Mapping[KeyPath, str], *, foreign: bool = False
) -> Model:
    """Builds `model` from plain data. Raises ConfigError with every mistake and its place.

    Types are strict (text is not a number, 1 is not a boolean), except that 1e6 and 3.0 do for whole numbers.
    where: place of each key (`file:line`, or the option on the command line); keys without one hold defaults.
    foreign: kinds of plugins that were not imported are taken as they are, see `kinds.of_any_kind`.
    """
    try:
        return model.model_validate(data, strict=True, context={"strict": True, "foreign": foreign})
    except ValidationError as error:
        found = error.errors(include_url=False)
    whole = [e for e in found if e["type"] == "int_type" and isinstance(e["input"], float) and e["input"].is_integer()]
    if whole:
        for e in whole:
            data = _with(data, e["loc"], int(e["input"]))
        return validate(model, data, where, foreign=foreign)
    messages: dict[KeyPath | str, str] = {}
    for e in found:
        if e["type"] == "value_error":
            text = _across(model, str(e["ctx"]["error"]), e["loc"], where)
            messages[text] = text
        else:
            path = _reachable(e["loc"], data, e["type"])
            messages.setdefault(path, _message(model, path, e, where, data))
    raise_all(list(messages.values()))
    raise AssertionError("pydantic refused the settings without an error")


def _message(
    model: type[BaseModel], path: KeyPath, e: Any, where: Mapping[KeyPath, str], data: Mapping[str, Any]
) -> str:
    kind, ctx, value, name = e["type"], e.get("ctx", {}), e["input"], dotted(path)
    limit = next((key for key in _LIMITS if key in ctx), None)
    if kind == "extra_forbidden":
        reason, remedy = _unknown_key(model, path, data)
    elif len(path) < len(e["loc"]) and name in _FORMS:
        reason, remedy = "is not of the expected form", f"Use {_FORMS[name]}"
    elif len(path) < len(e["loc"]) and kind != "missing":  # a union: one error per member
        reason, remedy = (
            "holds a value of a type that is not supported",
            "Write true, false, null, finite numbers, text, or lists and sections of these",
        )
    elif limit is not None:
        reason = f"must be {_LIMITS[limit]} {ctx[limit]}"
        remedy = f"Use a value {_LIMITS[limit]} {ctx[limit]}"
    elif kind == "literal_error":
        choices = ctx["expected"].replace("'", "").replace(" or ", ", ").split(", ")
        reason, remedy = f"must be one of {', '.join(choices)}", nearest(str(value), choices)
    elif kind in ("missing", "too_long", "too_short") and isinstance(value, tuple):
        count = _arity(fields_of(_section(model, path[:-1]))[str(path[-1])].annotation)
        reason, remedy = f"must hold {count} values", f"Write {count} of them"
    elif kind == "string_pattern_mismatch":
        form = _FORMS.get(name.partition("[")[0], ctx["pattern"])
        reason, remedy = "is not of the expected form", f"Use {form}"
    else:
        reason, remedy = _REASONS.get(kind, (e["msg"], "See --help for what it may be"))
    if isinstance(path[-1], int) and _place(path, where).startswith("--"):
        remedy = f"Separate the values by blanks, such as {_place(path, where).removesuffix(': ')} 64 64"
    got = "" if kind == "missing" and not isinstance(value, tuple) else f" (got {shown(value)})"
    place = _place(path, where)
    named = place.replace("-", "_") == f"__{name}: "  # the option says which setting it is
    return f"{place}{'' if named else f'{name}: '}{reason}{got}. {remedy}"


def _across(model: type[BaseModel], text: str, loc: KeyPath, where: Mapping[KeyPath, str]) -> str:
    """A cross-field message, with whole dotted keys, at the place of the key it names that the user set."""
    fields = fields_of(_section(model, loc))
    text = re.sub(r"(?<![\w.])(\w+)=", lambda m: f"{dotted((*loc, m[1]))}=" if m[1] in fields else m[0], text)
    named = [tuple(key.split(".")) for key in re.findall(r"([a-z_]+(?:\.[a-z_]+)*)=", text)]
    # What was typed on the command line is newer than what a file says: blame that first.
    given = sorted((path for path in named if path in where), key=lambda path: not where[path].startswith("-"))
    return f"{_place(given[0], where) if given else ''}{text}"


def _arity(annotation: Any) -> int:
    """Length of a fixed-length list setting."""
    members = get_args(annotation)
    return len(members) if get_origin(annotation) is tuple else _arity(members[0])


def _unknown_key(model: type[BaseModel], path: KeyPath, data: Mapping[str, Any]) -> tuple[str, str]:
    """Reason and remedy for a setting that its section does not have, or only in another kind of it."""
    section = _section(model, path[:-1])
    if (kinds := kinds_of(section)) is None:
        return "unknown key", _nearest_key(model, path, section)
    for key in path[:-1]:
        data = data[str(key)]
    named = dotted((*path[:-1], "kind"))
    name = data.get("kind", kinds.default)
    if owners := kinds.owners(str(path[-1])):
        reason = f"is a setting of {named}={owners[0]}, and {named} is {name}"
        return reason, f"Leave it out, or use {named}={owners[0]}"
    kind = kinds.find(name)
    return "unknown key", _nearest_key(model, path, section if kind is None else kind.settings)


def _nearest_key(model: type[BaseModel], path: KeyPath, section: type[BaseModel]) -> str:
    """The name that replaced an old one, the sibling in `section` that was probably meant, or the same name in another
    section."""
    if path in RENAMED:
        return f"It is now called {dotted(RENAMED[path])}"  # type: ignore[index]
    word = str(path[-1]).replace("-", "_").lower()
    if close := difflib.get_close_matches(word, section.model_fields, n=1, cutoff=0.6):
        return f"Did you mean {dotted((*path[:-1], close[0]))}?"
    elsewhere = {key[-1]: dotted(key) for key in reversed(leaf_paths(model))}
    if close := difflib.get_close_matches(word, elsewhere, n=1, cutoff=0.8):
        return f"Did you mean {elsewhere[close[0]]}?"
    return f"Choose from {', '.join(section.model_fields)}"


def _section(model: type[BaseModel], path: KeyPath) -> type[BaseModel]:
    for key in path:
        model = fields_of(model)[str(key)].annotation  # type: ignore[assignment]
    return model


def leaf_paths(model: type[BaseModel], prefix: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    """Path of each setting below `model`, sections left out."""
    paths: list[tuple[str, ...]] = []
    for name, field in fields_of(model).items():
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


def as_tuples(value: Any) -> Any:
    """A value from Python as settings hold it: lists, at any depth, become tuples."""
    if isinstance(value, list | tuple):
        return tuple(map(as_tuples, value))
    return {key: as_tuples(item) for key, item in value.items()} if isinstance(value, dict) else value


def shown(value: Any) -> str:
    """A value as a message shows it: lists in brackets, long ones cut."""
    text = repr(list(value) if isinstance(value, tuple) else value)
    return text if len(text) <= 60 else text[:57] + "..."
