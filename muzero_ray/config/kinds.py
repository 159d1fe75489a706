"""Sections whose `kind` says which settings they have: a registry of kinds, each with a class and a builder."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Generic, Literal, NamedTuple, TypeVar

from pydantic import (
    BaseModel,
    ValidationError,
    ValidationInfo,
    ValidatorFunctionWrapHandler,
    WrapValidator,
    model_validator,
)
from pydantic.fields import FieldInfo
from pydantic_core import InitErrorDetails

from muzero_ray.config.base import FrozenConfig
from muzero_ray.config.plugins import import_installed
from muzero_ray.errors import ConfigError
from muzero_ray.user_modules import imported

Section = TypeVar("Section", bound="KindConfig")


class Kind(NamedTuple, Generic[Section]):
    """settings: their class. builder: makes from them what the kind stands for; as "module:function" it is imported
    when it is first needed, so that settings can be read without it.
    """

    settings: type[Section]
    builder: Callable[..., Any] | str


class Kinds(Generic[Section]):
    """The kinds of one section, by name."""

    def __init__(self, section: str, default: str) -> None:
        """default: the kind of a section that names none."""
        self.section = section
        self.default = default
        self._kinds: dict[str, Kind[Section]] = {}

    def add(self, settings: type[Section], builder: Callable[..., Any] | str, *names: str) -> None:
        """names: of the kinds that these settings are for; without any, the default of their field `kind`."""
        for name in names or (settings.model_fields["kind"].default,):
            self._kinds[name] = Kind(settings, builder)

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self._kinds)

    def find(self, name: object, *, installed: bool = True) -> Kind[Section] | None:
        """None for an unknown kind. installed: import installed plugins first if the name is unknown."""
        if not isinstance(name, str):
            return None
        if name not in self._kinds and installed:
            import_installed()
        return self._kinds.get(name)

    def builder(self, name: str) -> Callable[..., Any]:
        """What makes the kind from its settings. Raises ConfigError if this process does not know the kind."""
        kind = self.find(name)
        if kind is None:
            raise ConfigError(
                f"{self.section}.kind={name}: no imported package registers it. Name its package in run.plugins"
            )
        builder = kind.builder
        if isinstance(builder, str):
            builder = imported(lambda: _function(str(builder)), f"{self.section}.kind={name}, made by {builder}")
        found: Callable[..., Any] = builder
        return found

    def owners(self, setting: str) -> list[str]:
        """The kinds that have a setting of this name."""
        return [name for name, kind in self._kinds.items() if setting in kind.settings.model_fields]

    def settings_for(self, kind: object, section: Mapping[str, Any], *, installed: bool = True) -> dict[str, Any]:
        """A section's data without the settings that other kinds have, and `kind` does not. installed: as in `find`."""
        known = self.find(kind, installed=installed)
        if known is None:
            return dict(section)  # reported when the settings are checked
        own = known.settings.model_fields
        return {setting: value for setting, value in section.items() if setting in own or not self.owners(setting)}

    def fields(self) -> dict[str, FieldInfo]:
        """The settings of all kinds by name, those that they share first."""
        classes = [kind.settings for kind in self._kinds.values()]
        shared = [name for name in classes[0].model_fields if all(name in one.model_fields for one in classes)]
        fields = {name: classes[0].model_fields[name] for name in shared}
        for one in classes:
            fields |= {name: field for name, field in one.model_fields.items() if name not in fields}
        return fields | {"kind": self._choice(fields["kind"])}

    def _choice(self, field: FieldInfo) -> FieldInfo:
        """`kind` itself, as a choice of the names."""
        choice: Any = Literal[self.names]
        added = [f"`{name}`: {_title(kind.settings)}" for name, kind in self._kinds.items() if _is_plugin(kind)]
        text = " ".join([field.description or "", *added])
        return FieldInfo(annotation=choice, default=self.default, description=text)

    def unknown(self, name: object) -> ValidationError:
        """What is raised for a kind that nobody registered."""
        expected = " or ".join(repr(one) for one in self.names)
        details = InitErrorDetails(type="literal_error", loc=("kind",), input=name, ctx={"expected": expected})
        return ValidationError.from_exception_data(self.section, [details])


def _function(place: str) -> Any:
    module, _, function = place.partition(":")
    return getattr(importlib.import_module(module), function)


def _is_plugin(kind: Kind[Any]) -> bool:
    return not kind.settings.__module__.startswith("muzero_ray.")


def _title(settings: type[BaseModel]) -> str:
    return (settings.__doc__ or "").strip().partition("\n")[0]


class KindConfig(FrozenConfig):
    """A section with a `kind`. Its own settings are those that all kinds share; each kind adds its own in a subclass,
    whose field `kind` has the name of the kind as type and default.
    """

    kinds: ClassVar[Kinds[Any]]

    kind: str

    @model_validator(mode="after")
    def _is_of_its_kind(self) -> KindConfig:
        known = self.kinds.find(self.kind)
        if known is None or known.settings is not type(self):
            raise ValueError(
                f"kind={self.kind} does not have settings of the class {type(self).__name__}. Use the class of a kind "
                f"that is registered ({', '.join(self.kinds.names)})"
            )
        return self


def of_any_kind(section: type[KindConfig]) -> WrapValidator:
    """Has a field of `section` read from plain data by the class of its kind.

    Validation's context: strict, as pydantic's; foreign: a kind that is not known is not looked for in plugins, and
    the settings that all kinds share are taken as they are.
    """

    def validate(value: Any, handler: ValidatorFunctionWrapHandler, info: ValidationInfo) -> Any:
        if not isinstance(value, Mapping):
            return handler(value)
        context: Mapping[str, Any] = info.context or {}
        name, foreign = value.get("kind", section.kinds.default), context.get("foreign", False)
        kind = section.kinds.find(name, installed=not foreign)
        if kind is not None:
            return kind.settings.model_validate(value, strict=context.get("strict"), context=info.context)
        if foreign and isinstance(name, str):
            return section.model_construct(**value)
        raise section.kinds.unknown(name)

    return WrapValidator(validate)


def kinds_of(section: Any) -> Kinds[Any] | None:
    """None for a section without kinds, and for what is not a section."""
    return section.kinds if isinstance(section, type) and issubclass(section, KindConfig) else None


def fields_of(section: Any) -> Mapping[str, FieldInfo]:
    """The settings of a section by name; of one with kinds, those of all of them."""
    if (kinds := kinds_of(section)) is not None:
        return kinds.fields()
    fields: Mapping[str, FieldInfo] = section.model_fields
    return fields
