"""Options of the command line: how a setting is spelled and shown. Imports tyro only when words are split.

tyro splits the words and draws the help; what a value may be is decided by the models alone (`config.validation`).
"""

from __future__ import annotations

import contextlib
import difflib
import io
import types
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, TypedDict, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from muzero_ray.config.kinds import fields_of
from muzero_ray.config.renamed import RENAMED, renaming
from muzero_ray.config.validation import KeyPath, raise_all
from muzero_ray.config.yaml_file import Scalar, parse_scalar, parse_value
from muzero_ray.errors import ConfigError
from muzero_ray.printed import launch_line
from muzero_ray.standard_streams import print_error, printing_result

SHORT_FORMS: dict[tuple[str, ...], str] = {
    ("run", "seed"): "--seed",
    ("run", "runs_dir"): "--runs-dir",
    ("run", "episodes"): "--episodes",
    ("run", "learner_steps"): "--iterations",
    ("run", "minutes"): "--minutes",
    ("run", "address"): "--address",
    ("env", "max_moves"): "--max-moves",
    ("search", "simulations"): "--simulations",
    ("actors", "count"): "--actors",
}


class Option(NamedTuple):
    """How one setting is spelled: tyro's value count and placeholder, and what its words mean."""

    nargs: int | tuple[int, int] | Literal["*"]
    metavar: str
    convert: Callable[[list[str]], Any]


def flag(path: Sequence[str]) -> str:
    """`("learner", "batch_size")` -> `--learner.batch-size`."""
    return "--" + ".".join(path).replace("_", "-")


def with_current_names(argv: Sequence[str]) -> list[str]:
    """`argv` with each option that has an old name under its name of today; a hint on standard error says so."""
    current = {flag(old): flag(new) for old, new in RENAMED.items()}
    words = []
    for word in argv:
        typed, equals, value = word.partition("=")
        new = current.get(typed.replace("_", "-"))
        if new is not None:
            print_error(f"hint: {renaming(typed, new)}")
        words.append(word if new is None else f"{new}{equals}{value}")
    return words


def setting_options(model: type[BaseModel], base: BaseModel, prefix: tuple[str, ...] = ()) -> dict[str, Any]:
    """tyro's view of a model: every setting may be given, none has to; `base` holds the defaults that help shows."""
    options: dict[str, Any] = {}
    for name, field in fields_of(model).items():
        # A setting of another kind than that of `base` is shown with its own default.
        path, value = (*prefix, name), getattr(base, name, field.default)
        if isinstance(value, BaseModel):
            options[name] = _typed_dict(name, setting_options(type(value), value, path), _section_doc(field))
        else:
            options[name] = one_option(field.annotation, field.description or "", value, alias=SHORT_FORMS.get(path))
    return options


def _section_doc(field: FieldInfo) -> str | None:
    """What help says of a section: of one with kinds, that of all of them."""
    return getattr(field.annotation, "__doc__", None)


def _typed_dict(name: str, options: dict[str, Any], doc: str | None) -> Any:
    create: Any = TypedDict  # mypy knows only literal fields
    result = create(name, options, total=False)
    result.__doc__ = doc
    result.__module__ = "builtins"  # no source to look for comments in: tyro would parse this file once per section
    return result


def one_option(
    annotation: Any, text: str, default: Any, *, positional: str | None = None, alias: str | None = None
) -> Any:
    """Annotation of one option. annotation None: a bare flag. positional: how help names a word without a flag."""
    import tyro

    nargs, metavar, convert = _shape(annotation) if annotation is not None else Option(0, "", lambda _: True)
    spec: Any = tyro.constructors.PrimitiveConstructorSpec(
        nargs=nargs,
        metavar=positional or metavar,
        instance_from_str=convert,
        is_instance=lambda _: True,
        str_from_instance=lambda value: [str(value)],
    )
    shown = list(default) if isinstance(default, tuple) else default
    hint = "" if default is None and positional else f"(default: {shown})"
    arg = tyro.conf.arg(help=text, help_behavior_hint=hint, aliases=[alias] if alias else None)
    option = Annotated[str, spec, arg]
    return tyro.conf.Positional[option] if positional else option


def _shape(annotation: Any) -> Option:
    """How a value of that type is written on the command line."""
    origin, members = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _shape(members[0])
    if origin in (Union, types.UnionType) and len(members) == 2 and members[1] is type(None):
        inner = _shape(members[0])
        # `None` is one word, even where the value itself is two.
        nargs = (1, inner.nargs) if isinstance(inner.nargs, int) and inner.nargs > 1 else inner.nargs
        return Option(nargs, f"{inner.metavar}|None", lambda words: None if _is_none(words) else inner.convert(words))
    if origin in (Union, types.UnionType):  # words, or a number
        names = ["None" if member is type(None) else _shape(member).metavar for member in members]
        return Option(1, "|".join(names), _scalar)
    if origin is Literal:
        return Option(1, "{" + ",".join(map(str, members)) + "}", _scalar)
    if origin is tuple and members[-1] is Ellipsis:
        item = _shape(members[0])
        return Option("*", f"[{item.metavar} ...]", lambda words: tuple(item.convert([word]) for word in words))
    if origin is tuple:
        item = _shape(members[0])  # all of them are alike
        metavars = " ".join([item.metavar] * len(members))
        return Option(len(members), metavars, lambda words: tuple(item.convert([word]) for word in words))
    if origin is dict:
        return Option("*", "[KEY=VALUE ...]", _pairs)
    if annotation is Path:
        return Option(1, "PATH", lambda words: Path(words[0]))
    if annotation is str:
        return Option(1, "TEXT", lambda words: words[0])
    return Option(1, {bool: "{True,False}", int: "INT", float: "FLOAT"}[annotation], _scalar)


def _is_none(words: Sequence[str]) -> bool:
    return len(words) == 1 and words[0].lower() in ("none", "null")


def _scalar(words: Sequence[str]) -> Scalar:
    try:
        return None if _is_none(words) else parse_scalar(words[0])
    except ValueError:
        return words[0]  # absurdly long digits: refused later, as text


def _pairs(words: Sequence[str]) -> dict[str, Any]:
    pairs = [word.partition("=") for word in words]
    if bad := [word for word, (_, equals, _) in zip(words, pairs, strict=True) if not equals]:
        raise ConfigError(
            f"--env.kwargs: must be KEY=VALUE words (got {bad[0]!r}). Write such as --env.kwargs mode=1, in "
            "quotes if there are blanks: 'config={lanes: 3}'"
        )
    return {key: _value(key, text) for key, _, text in pairs}


def _value(key: str, text: str) -> Any:
    """The value of a keyword argument."""
    try:
        return None if _is_none([text]) else parse_value(text)
    except ValueError:
        return text  # absurdly long digits: refused later, as text
    except ConfigError as error:
        raise ConfigError(f"--env.kwargs: {key}: {error}") from None


def split(
    command: str, options: dict[str, Any], flags: dict[str, tuple[str, ...]], argv: list[str], description: str
) -> tuple[dict[str, Any], dict[KeyPath, str]]:
    """The settings that `argv` names, nested, and for each the option as it was typed."""
    import tyro

    where: dict[KeyPath, str] = {}
    problems = []
    for token in argv:
        typed = token.partition("=")[0]
        path = flags.get(typed.replace("_", "-"))
        if path is not None:
            where[path] = typed
        elif typed.startswith("--") and typed != "--help":
            problems.append(f"{typed}: unknown option of {command}. {_nearest_flag(typed, list(flags), command)}")
    raise_all(problems)
    output = io.StringIO()
    try:
        with printing_result(), contextlib.redirect_stderr(output):
            given, extra = tyro.cli(
                _typed_dict(command, options, description),
                args=argv,
                prog=launch_line(command),
                description=description,
                return_unknown_args=True,
            )
    except SystemExit as stop:
        if not stop.code:
            raise
        raise ConfigError(f"{_unboxed(output.getvalue())} See: {launch_line(command, '--help')}") from None
    if extra:
        raise ConfigError(f"{command}: unexpected word (got {extra[0]!r}). See: {launch_line(command, '--help')}")
    return given, where


def _nearest_flag(typed: str, flags: list[str], command: str) -> str:
    word = typed.lower().replace("_", "-")
    by_last = {flag.removeprefix("--").rpartition(".")[2]: flag for flag in reversed(flags)}
    if close := difflib.get_close_matches(word, flags, n=1, cutoff=0.75):
        return f"Did you mean {close[0]}?"
    if close := difflib.get_close_matches(word.removeprefix("--").rpartition(".")[2], by_last, n=1, cutoff=0.6):
        return f"Did you mean {by_last[close[0]]}?"
    return f"See: {launch_line(command, '--help')}"


def _unboxed(text: str) -> str:
    """The message in tyro's frame on one line, without title and footer. All it refuses itself is a missing value."""
    blocks: list[list[str]] = [[]]
    for line in text.splitlines():
        if "──" in line or "---" in line:
            blocks.append([])
        else:
            blocks[-1].append(line.strip("│| "))
    messages = [" ".join(block) for block in blocks if block and not block[0].startswith("For full")]
    return messages[-1] if messages else text.strip()
