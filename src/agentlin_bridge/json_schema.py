"""JSON Schema: is it one, and does a value fit. References are never fetched."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import lru_cache
from typing import Any


def schema_problem(schema: Mapping[str, Any]) -> str:
    """Why a value is no JSON Schema; empty if it is one."""
    # jsonschema is slow to import, and not needed before the first schema.
    from jsonschema.exceptions import SchemaError  # noqa: PLC0415
    from jsonschema.validators import validator_for  # noqa: PLC0415

    try:
        validator_for(dict(schema)).check_schema(dict(schema))
    except SchemaError as error:
        return error.message
    return ""


def misfit(schema: Mapping[str, Any], value: object) -> str:
    """What is wrong with a value by a schema; empty if nothing is."""
    from jsonschema.exceptions import best_match  # noqa: PLC0415
    from referencing.exceptions import Unresolvable  # noqa: PLC0415

    try:
        error = best_match(_validator(json.dumps(schema, sort_keys=True)).iter_errors(value))
    except Unresolvable as unresolvable:
        return f"the schema refers to something that is not in it ({unresolvable})"
    if error is None:
        return ""
    where = "".join(f"[{part!r}]" for part in error.absolute_path)
    return f"{where or 'the whole'}: {error.message}"


@lru_cache(maxsize=256)
def _validator(schema: str) -> Any:
    from jsonschema.validators import validator_for  # noqa: PLC0415
    from referencing import Registry  # noqa: PLC0415

    loaded = json.loads(schema)
    return validator_for(loaded)(loaded, registry=Registry())
