"""What plans and problems have in common as JSON: how a text is read, and by which schema it is known."""

from __future__ import annotations

import json
from typing import Any

from memplan.compiler.errors import PlanError


def parse_json(text: str, file: str) -> Any:
    """Returns the value of a JSON text; raises PlanError, naming the place, if it is none."""
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise PlanError(f"{file}:{error.lineno}:{error.colno}: not JSON: {error.msg}") from None
    except ValueError as error:  # a number of thousands of digits
        raise PlanError(f"{file}: not JSON that can be read: {error}") from None
    except RecursionError:
        raise PlanError(f"{file}: the JSON is nested too deeply") from None


def document_of(data: Any, kind: str, schema: str, file: str) -> dict[str, Any]:
    """Returns `data` if it is a document of this schema; raises PlanError, naming the kind expected, if it is not."""
    if not isinstance(data, dict) or data.get("schema") != schema:
        raise PlanError(f"{file}: not a {kind} of schema {schema}")
    return data
