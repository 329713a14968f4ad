"""Sums of products by the library, on this machine and with SIMD instructions on an emulated board, have JAX's results."""

import re
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from exported import differences, needs, run
from jax import lax

from memplan.backends.c import toolchain
from memplan.backends.c.export import CExport, export_c

_NHWC = ("NHWC", "HWIO", "NHWC")
_RANDOM = np.random.default_rng(3)


def _bytes(*shape: int) -> np.ndarray:
    values = _RANDOM.integers(-128, 128, shape)
    values.flat[:2] = -128, 127
    return values.astype(np.int8)


def _floats(*shape: int) -> np.ndarray:
    return _RANDOM.normal(size=shape).astype(np.float32)


def _conv(x: Any, w: Any, zero: int = 0, names: Any = _NHWC, **options: Any) -> Any:
    wide = jnp.int32 if x.dtype == jnp.int8 else jnp.float32
    options = {"window_strides": (1, 1), "padding": "SAME"} | options
    w = jnp.asarray(w).astype(wide)
    return lax.conv_general_dilated(x.astype(wide) - zero, w, dimension_numbers=names, **options)


def _int8(total: Any, scale: float = 0.01) -> Any:
    return jnp.clip(jnp.round(total.astype(jnp.float32) * scale), -128, 127).astype(jnp.int8)


# Weights that are constants in flash; 5 and 7 leave remainders of the four results and of the four products at a time.
_POINT, _DENSE, _DEEP, _FEW = _bytes(1, 1, 7, 5), _bytes(3, 3, 3, 6), _bytes(3, 3, 1, 6), _bytes(13, 10)
_FILTERS, _OUTER = _floats(3, 2, 1, 6), _bytes(2, 3, 5)


def _joined(image: Any, axis: int) -> Any:
    """Returns weights of which some are constants and others are not, as of a layer that is trained in part."""
    return jnp.concatenate([jnp.asarray(_FEW[: 9 if axis else 4]), image.reshape(9, 10)], axis)


def _integers(x: Any, image: Any, deep: Any, row: Any) -> list[Any]:
    centred = row.astype(jnp.int32)
    return [
        _conv(x, _POINT, -128),
        _conv(x, _POINT, 127, window_strides=(2, 1)),
        _conv(image, _DENSE, 3, window_strides=(2, 2)),
        _conv(image, _DENSE, rhs_dilation=(2, 1), padding=((4, 0), (1, 3))),
        _conv(deep, _DEEP, -128, feature_group_count=6),
        _conv(deep, _DEEP, 127, feature_group_count=6, window_strides=(2, 2)),
        _conv(deep.transpose(0, 3, 1, 2), _DEEP, 5, ("NCHW", "HWIO", "NCHW"), feature_group_count=6),
        _conv(x.transpose(0, 3, 1, 2), _POINT, 5, ("NCHW", "HWIO", "NCHW")),
        (centred - -128) @ jnp.asarray(_FEW).astype(jnp.int32),
        centred @ centred,
        centred @ _joined(image, 0).astype(jnp.int32),
        centred[:9] @ _joined(image, 1).astype(jnp.int32),
        lax.dot_general(_OUTER, row[:5], (((2,), (0,)), ((), ())), preferred_element_type=jnp.int32),
    ]


def _small_floats(image: Any, f: Any, g: Any, row: Any) -> list[Any]:
    y, pullback = jax.vjp(lambda f, w: _conv(f, w, feature_group_count=6), f, _FILTERS)
    weights = jnp.asarray(_FEW).astype(jnp.float32)
    return [
        y,
        *pullback(jnp.cos(y)),
        g @ weights,
        jnp.tanh(g @ weights) @ weights.T,
        jnp.outer(row.astype(jnp.float32) - 3.0, g[0]),
        jax.grad(lambda w: ((g @ w) ** 2).sum())(weights[:, :7] / 100),
        (row.astype(jnp.float32) + 128.0) @ g[0],
        g @ _joined(image, 0).astype(jnp.float32),
        (row.astype(jnp.float32) - 7.0) @ weights,
    ]


def _chain(image: Any) -> Any:
    """Returns layers that may be written in place, channel by channel and pixel by pixel, after one that may not."""
    deep = _int8(_conv(image, _DENSE, window_strides=(2, 2)))
    for _ in range(2):
        deep = _int8(_conv(deep, _DEEP, -128, feature_group_count=6))
        deep = _int8(_conv(deep, _bytes(1, 1, 6, 6), 127))
    return _int8(_conv(deep, _DEEP, feature_group_count=6, window_strides=(2, 2)))


def _everything(x: Any, image: Any, deep: Any, row: Any, f: Any, g: Any) -> list[Any]:
    return [*_integers(x, image, deep, row), *_small_floats(image, f, g, row)]


@pytest.fixture(scope="module")
def sums() -> CExport:
    operands = (
        _bytes(1, 3, 4, 7),
        _bytes(1, 5, 6, 3),
        _bytes(1, 5, 4, 6),
        _bytes(13),
        _floats(1, 4, 5, 6),
        _floats(4, 13),
    )
    return export_c(_everything, *operands, reorder=False, effort="fast")


@pytest.fixture(scope="module")
def chain() -> CExport:
    def beside_bits(image: Any, other: Any) -> tuple[Any, Any]:
        deep = _chain(image)
        return deep, jnp.where((other > 0).reshape(-1), 2.0, other.reshape(-1)) + deep.sum()

    return export_c(beside_bits, _bytes(1, 12, 12, 3), _floats(8, 5), effort="fast")


def _integer_results(made: CExport) -> set[str]:
    buffers = [made.plan.program.buffers[b] for b in made.plan.program.results]
    return {buffer.name for buffer in buffers if buffer.dtype != "float32"}


@needs("gcc")
def test_sums_have_the_results_of_jax(sums: CExport, tmp_path: Path) -> None:
    found = run(sums, tmp_path)
    assert len(found) == 23
    assert all(found[name] == 0 for name in _integer_results(sums))
    used = set(re.findall(r"(?:dots|windows)_\w+(?=\()", sums.files["model.c"]))
    assert used == {"dots_s8", "windows_s8", "dots_f32", "dots_f32_s8", "dots_s8_f32", "dots_s8_s8_f32", "windows_f32"}


@needs("gcc")
def test_sums_in_place(chain: CExport, tmp_path: Path) -> None:
    ways = [way for way in chain.plan.in_place if way is not None]
    assert {way.width for way in ways} == {1, 4}
    assert "memcpy(y0 + i0 * 6, part" in chain.files["model.c"]
    assert run(chain, tmp_path)["result_0"] == 0


@needs("arm-none-eabi-gcc", "qemu-system-arm")
@pytest.mark.parametrize("which", ["sums", "chain"])
def test_simd_instructions_have_the_same_results(which: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    made: CExport = request.getfixturevalue(which)
    made.write(tmp_path)
    found = differences(toolchain.run_on_board(tmp_path, tmp_path, "-O1"))
    assert all(found[name] == 0 for name in _integer_results(made))
    listing = toolchain.run_tool("arm-none-eabi-objdump", "-d", str(tmp_path / "model_test.elf"))
    assert "smlatt" in listing
    assert "smlad" in listing


def test_other_sums_stay_loops() -> None:
    def fun(u: Any, b: Any) -> list[Any]:
        wide = b.astype(jnp.int32)
        return [
            u.astype(jnp.int32) @ u.astype(jnp.int32),
            (wide - 300) @ wide,
            (wide * wide * wide).sum(),
            b.sum(dtype=jnp.int32),
            (wide << 20) @ wide,
        ]

    made = export_c(fun, np.arange(9, dtype=np.uint8), _bytes(9), effort="fast")
    assert "dots_" not in made.files["model.c"]
    assert "windows_" not in made.files["model.c"]
