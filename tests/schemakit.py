"""Published messages against their schemas, as any reader of the published schemas would check them."""

import json
from collections.abc import Iterable
from functools import cache
from typing import Any, NoReturn

from jsonschema import Draft202012Validator

from tickcast.ui.documents.schemas import schema_of


@cache
def validator(name: str) -> Draft202012Validator:
    return Draft202012Validator(schema_of(name))


def problems(name: str, record: Any) -> list[str]:
    """What is wrong with a record, if anything."""
    return [f"{error.json_path}: {error.message}" for error in validator(name).iter_errors(record)]


def valid(name: str, messages: Iterable[bytes]) -> list[dict[str, Any]]:
    """The messages decoded, each of which must be as the schema of that name says."""
    decoded = [json.loads(message, parse_constant=_refuse) for message in messages]
    wrong = [(record, found) for record in decoded if (found := problems(name, record))]
    assert not wrong, f"{name}: {len(wrong)} of {len(decoded)}, first {wrong[0]}"
    return decoded


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is no JSON")
