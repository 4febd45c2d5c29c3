"""What all sections of the config have in common."""

from __future__ import annotations

from typing import Any, get_args

from pydantic import BaseModel, ConfigDict, ValidationInfo, field_validator


class Section(BaseModel):
    """A config section: unknown keys are refused, values are immutable once read."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    @field_validator("*", mode="before")
    @classmethod
    def _truth_is_no_number(cls, value: Any, info: ValidationInfo) -> Any:
        field = cls.model_fields[info.field_name] if info.field_name else None
        if field is not None and field.annotation is not bool:
            found = [
                entry for entry in (value if isinstance(value, list) else [value]) if isinstance(entry, bool)
            ]
            if found and _has_numbers(field.annotation):
                raise ValueError(f"expected a number, not {str(found[0]).lower()}")
        return value


def _has_numbers(kind: Any) -> bool:
    """Whether a field's type is a number, or holds some."""
    return kind in (int, float) or any(_has_numbers(part) for part in get_args(kind))
