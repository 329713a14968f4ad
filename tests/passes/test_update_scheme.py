"""Update schemes: the paper's model of memory, on its own networks and schemes."""

from __future__ import annotations

import pytest

from memplan.compiler.errors import MemplanError
from memplan.passes.update_scheme import PUBLISHED, UpdateScheme, layer_memory, update_memory
from memplan.workloads import mcu


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_model_gives_the_published_sizes(name: str) -> None:
    """The public code names its schemes by whole kB."""
    layers = mcu.NETWORKS[name]().layers
    assert [int(update_memory(scheme, layers).total / 1024) for scheme in PUBLISHED[name].values()] == list(
        PUBLISHED[name]
    )


def test_memory_of_one_layer_by_hand() -> None:
    expand, depthwise = mcu.tiny(16).blocks[1].layers[:2]  # 8 to 16 channels of 8 × 8 pixels, then to 4 × 4
    found = layer_memory(expand, 3)
    assert (found.parameters, found.inputs, found.masks) == (16 * 4 + 3 * 16, 3 * 64, 16 * 64 / 8)
    found = layer_memory(depthwise, 5)
    assert (found.parameters, found.inputs, found.masks) == (16 * 4 + 5 * 9, 5 * 64, 16 * 16 / 8)


def test_channels_of_a_scheme() -> None:
    layers = mcu.tiny(16).layers
    scheme = UpdateScheme(4, ((len(layers) - 3, 1.0), (len(layers) - 1, 0.3)))
    assert scheme.channels(layers) == [*[0] * (len(layers) - 3), 8, 0, 4]
    assert scheme.kept_inputs(layers) == [*[False] * (len(layers) - 3), True, False, False]


@pytest.mark.parametrize(
    ("scheme", "message"),
    [
        (UpdateScheme(99), "trains 99 biases: the network has 12 convolutions"),
        (UpdateScheme(2, ((3, 1.0),)), "convolution 3, which is none of the last 2 of 12"),
        (UpdateScheme(2, ((11, 1.5),)), "convolution 11 is 1.5"),
        (UpdateScheme(2, ((11, 1.0), (10, 1.0))), r"\[11, 10\]"),
    ],
)
def test_a_scheme_that_does_not_fit(scheme: UpdateScheme, message: str) -> None:
    with pytest.raises(MemplanError, match=message):
        update_memory(scheme, mcu.tiny(16).layers)
