"""What all settings are made of: the class of their sections, and the ranges that several of them share."""

from __future__ import annotations

import re
from typing import Annotated, Any, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator
from pydantic_core import PydanticCustomError
from typing_extensions import TypeAliasType

Fraction = Annotated[float, Field(ge=0.0, le=1.0)]
Width = Annotated[int, Field(gt=0, le=65_536)]
Games = Annotated[int, Field(gt=0, le=1_000_000)]
Simulations = Annotated[int, Field(ge=1, le=10_000)]
Minutes = Annotated[float, Field(gt=0.0, le=1e9)]
Count = Annotated[int, Field(gt=0, le=10_000)]
Threads = Annotated[int, Field(gt=0, le=1024)]
Cpus = Annotated[float, Field(gt=0.0, le=1024.0)]

ModuleName = Annotated[str, Field(pattern=r"^[A-Za-z_]\w*(\.[A-Za-z_]\w*)*$")]

OPPONENT = re.compile(r"random|minimax|mcts:[1-9][0-9]{0,6}")
"""Whoever plays board games without being trained."""

OpponentName = Annotated[str, Field(pattern=f"^({OPPONENT.pattern})$")]

KwargValue = TypeAliasType(
    "KwargValue", "bool | int | float | str | tuple[KwargValue, ...] | dict[str, KwargValue] | None"
)
"""What YAML can say of a keyword argument."""

LARGEST, LARGEST_SEED = 2**63 - 1, 2**64 - 1
"""Whole numbers that numpy's integers hold, and seeds that torch takes."""


class FrozenConfig(BaseModel):
    """Immutable; unknown keys, NaN, infinities, and numbers too large for numpy and torch are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, use_attribute_docstrings=True)

    @field_validator("*")
    @classmethod
    def _not_too_large(cls, value: Any, info: ValidationInfo) -> Any:
        limit = LARGEST_SEED if info.field_name == "seed" else LARGEST
        for number in value if isinstance(value, tuple) else (value,):
            if isinstance(number, int) and number > limit:
                raise PydanticCustomError("less_than_equal", "too large", {"le": limit})
        return value

    def overridden(self, **values: object) -> Self:
        """A copy with these values, already validated; those that are None stay as they are."""
        return self.model_copy(update={name: value for name, value in values.items() if value is not None})
