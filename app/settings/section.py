"""The base of all sections of the settings."""

from typing import Any

from pydantic import BaseModel, ConfigDict, field_validator


class Section(BaseModel):
    """A group of settings; `Settings` is all groups together. `load_settings` passes in what is in the environment.

    Validators see the fields that are declared before theirs (`info.data`), which is how one setting is checked against
    another while every wrong value is still reported at once. A field whose own value was wrong is missing there.
    The names of validators must differ between sections: one of the same name would silently replace the other.
    """

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        validate_default=True,
        # A refused value may be a secret, or hold one.
        hide_input_in_errors=True,
    )

    @field_validator("*", mode="before")
    @classmethod
    def _is_text(cls, value: Any) -> Any:
        # Bytes of the environment that are no UTF-8 arrive as lone surrogates.
        if isinstance(value, str) and any("\ud800" <= character <= "\udfff" for character in value):
            raise ValueError("must be text in UTF-8")
        # The environment cannot hold one, a file can; libraries in C would take what is before it alone.
        if isinstance(value, str) and "\0" in value:
            raise ValueError("must not contain the character NUL")
        return value
