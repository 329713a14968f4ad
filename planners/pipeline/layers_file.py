"""Layers of a pipeline in a JSON file: `{"first": 0, "layers": [{"name": …, "forward": …, …}, …]}`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from memplan.compiler import limits
from memplan.compiler.errors import MemplanError
from memplan.compiler.files import read_text
from memplan.planners.pipeline.problem import PipelineLayer

_NUMBERS = ("forward", "backward", "state", "kept", "passed")


def read_layers(path: Path) -> tuple[tuple[PipelineLayer, ...], int]:
    """Returns the layers of a file, and the bytes of the first one's input.

    Raises:
      MemplanError: the file cannot be read, or holds something else; the message names the place. Whether the numbers
        make sense is for `PipelineProblem.check`.
    """
    try:
        content = json.loads(read_text(path, limits.LAYERS))
    except (ValueError, RecursionError) as error:
        if isinstance(error, MemplanError):
            raise
        raise MemplanError(f"{path}: is no JSON: {error!s:.80}") from None
    if not isinstance(content, dict) or not isinstance(content.get("layers"), list):
        raise MemplanError(f'{path}: must be an object with a list "layers"')
    if unknown := set(content) - {"first", "layers"}:
        raise MemplanError(f"{path}: {min(unknown)!r:.80} is not known: there are 'first' and 'layers'")
    layers = tuple(_layer(path, number, each) for number, each in enumerate(content["layers"]))
    return layers, content.get("first", 0)


def layers_text(layers: tuple[PipelineLayer, ...], first: int = 0) -> str:
    """Returns the content of a file that `read_layers` reads."""
    rows = [{name: getattr(layer, name) for name in ("name", *_NUMBERS)} for layer in layers]
    return json.dumps({"first": first, "layers": rows}, indent=1) + "\n"


def _layer(path: Path, number: int, given: Any) -> PipelineLayer:
    place = f"{path}: layer {number}"
    if not isinstance(given, dict):
        raise MemplanError(f"{place}: must be an object")
    for name in _NUMBERS:
        if name not in given:
            raise MemplanError(f"{place}: has no {name!r}")
        if isinstance(given[name], bool) or not isinstance(given[name], int | float):
            raise MemplanError(f"{place}: {name} is {given[name]!r:.80}: it must be a number")
    if unknown := set(given) - {"name", *_NUMBERS}:
        raise MemplanError(f"{place}: {min(unknown)!r:.80} is not known; there are name, {', '.join(_NUMBERS)}")
    return PipelineLayer(str(given.get("name", f"layer {number}")), *(given[name] for name in _NUMBERS))
