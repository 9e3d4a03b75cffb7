"""What sections of the settings are made of."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

Positive = Annotated[int, Field(gt=0)]
Natural = Annotated[int, Field(ge=0)]
YEAR_MS = 366 * 86_400_000
Span = Annotated[int, Field(ge=0, le=100 * YEAR_MS)]  # ms; beside an event time it leaves 64 bits of ns


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)
