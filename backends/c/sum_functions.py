"""The small library that exported loop nests call for sums of products: up to four results in one pass over the input.

Two forms cover dense and pointwise convolutions, dense layers, depthwise convolutions and the gradients of all these:

    dots     sums[k] += sum over i of x[i * x_step] * w[k * w_row + i * w_step]      the results share x
    windows  sums[k] += sum over i, j of x[k + ...] * w[k + ...]                     each result has its own channel

Each sum adds its products in the order of the loops, so floats have the bits of the plain loop.

SIMD instructions: Arm, "C Language Extensions" (ACLE), chapter on 32-bit SIMD.
"""

from __future__ import annotations

from collections.abc import Iterable

from memplan.compiler.embedded.products import RESULTS_AT_ONCE

_DOTS = """\
/* Adds n products to each of count sums, at most 4: sums[k] += x[i * x_step] * w[k * w_row + i * w_step]. */
static inline void {name}({sum} *sums, int32_t count, const {x} *x,{zero_parameter} int32_t x_step, const {w} *w,
        int32_t w_row, int32_t w_step, int32_t n)
{{
    if (count == 4) {{
        const {w} *const w1 = w + w_row, *const w2 = w1 + w_row, *const w3 = w2 + w_row;
        {sum} a0 = sums[0], a1 = sums[1], a2 = sums[2], a3 = sums[3];
        int32_t i = 0;{simd}
        for (; i < n; i++) {{
            const {sum} factor = {x_value};
            a0 += factor * {cast}w[i * w_step];
            a1 += factor * {cast}w1[i * w_step];
            a2 += factor * {cast}w2[i * w_step];
            a3 += factor * {cast}w3[i * w_step];
        }}
        sums[0] = a0;
        sums[1] = a1;
        sums[2] = a2;
        sums[3] = a3;
        return;
    }}
    for (int32_t k = 0; k < count; k++, w += w_row) {{
        {sum} a = sums[k];
        for (int32_t i = 0; i < n; i++) {{
            a += {x_value} * {cast}w[i * w_step];
        }}
        sums[k] = a;
    }}
}}
"""

_WINDOWS = """\
/* Adds the products of a window to each of count sums, at most 4, which are neighbours in x and in w:
   sums[k] += x[k + i * x_row + j * x_step] * w[k + i * w_row + j * w_step]. */
static inline void {name}({sum} *sums, int32_t count, const {x} *x,{zero_parameter} int32_t x_row,
        int32_t x_step, const {w} *w, int32_t w_row, int32_t w_step, int32_t rows, int32_t columns)
{{
    if (count == 4) {{
        {sum} a0 = sums[0], a1 = sums[1], a2 = sums[2], a3 = sums[3];
        for (int32_t i = 0; i < rows; i++) {{
            for (int32_t j = 0; j < columns; j++) {{
                const {x} *const xs = x + i * x_row + j * x_step;
                const {w} *const ws = w + i * w_row + j * w_step;
{four}
            }}
        }}
        sums[0] = a0;
        sums[1] = a1;
        sums[2] = a2;
        sums[3] = a3;
        return;
    }}
    for (int32_t k = 0; k < count; k++) {{
        {sum} a = sums[k];
        for (int32_t i = 0; i < rows; i++) {{
            for (int32_t j = 0; j < columns; j++) {{
                a += {x_window} * {cast}w[k + i * w_row + j * w_step];
            }}
        }}
        sums[k] = a;
    }}
}}
"""

_DOTS_SIMD = """
#ifdef MEMPLAN_SIMD
        if (x_step == 1 && w_step == 1) {
            const int16x2_t minus_zero = both_halves(-x_zero);
            const int32_t w_row3 = 3 * w_row;
            const int8_t *v = w;
            i = n & ~3;
            for (const int8_t *u = x; u != x + i; u += 4, v += 4) {
                const uint32_t bytes = four_bytes(u);
                const int16x2_t x02 = __sxtab16(minus_zero, bytes), x13 = __sxtab16(minus_zero, bytes >> 8);
                a0 = four_products(x02, x13, v, a0);
                a1 = four_products(x02, x13, v + w_row, a1);
                a2 = four_products(x02, x13, v + 2 * w_row, a2);
                a3 = four_products(x02, x13, v + w_row3, a3);
            }
        }
#endif"""

_WINDOWS_SIMD = """\
#ifdef MEMPLAN_SIMD
                const uint32_t x_bytes = four_bytes(xs), w_bytes = four_bytes(ws);
                const int16x2_t minus_zero = both_halves(-x_zero);
                const int16x2_t x02 = __sxtab16(minus_zero, x_bytes), x13 = __sxtab16(minus_zero, x_bytes >> 8);
                const int16x2_t w02 = __sxtb16(w_bytes), w13 = odd_bytes(w_bytes);
                a0 = __smlabb(x02, w02, a0);
                a1 = __smlabb(x13, w13, a1);
                a2 = __smlatt(x02, w02, a2);
                a3 = __smlatt(x13, w13, a3);
#else
{plain}
#endif"""

# What the SIMD paths use; a part of memplan_operators.h.
SIMD_OPERATORS = """\
/* Four int8 at a time, where the processor has such instructions (Cortex-M4, M7, M33, ...). Without MEMPLAN_SIMD the
   same functions are plain C, and have the same results. */
#if defined(__ARM_FEATURE_SIMD32) && defined(__ARM_FEATURE_DSP) && !defined(__ARM_BIG_ENDIAN) \\
    && !defined(MEMPLAN_NO_SIMD)
#define MEMPLAN_SIMD
#include <arm_acle.h>
#include <string.h>

static inline int16x2_t both_halves(int32_t a) { return (int16x2_t)(((uint32_t)a & 0xFFFFu) | ((uint32_t)a << 16)); }

/* Loads four int8 from any address. */
static inline uint32_t four_bytes(const int8_t *x)
{
    uint32_t bytes;
    memcpy(&bytes, x, sizeof bytes);
    return bytes;
}

/* Returns the bytes 1 and 3 as 16 bits each. */
static inline int16x2_t odd_bytes(uint32_t bytes)
{
#if defined(__GNUC__)
    int16x2_t odd;
    __asm__("sxtb16 %0, %1, ror #8" : "=r"(odd) : "r"(bytes));
    return odd;
#else
    return __sxtb16(bytes >> 8);
#endif
}

/* Returns sum + x0 * w[0] + x1 * w[1] + x2 * w[2] + x3 * w[3]; the x are pairs of 16 bits. */
static inline int32_t four_products(int16x2_t x02, int16x2_t x13, const int8_t *w, int32_t sum)
{
    const uint32_t bytes = four_bytes(w);
    sum = __smlad(x02, __sxtb16(bytes), sum);
    return __smlad(x13, odd_bytes(bytes), sum);
}
#endif
"""

_SHORT = {"int8": "s8", "float32": "f32"}
_LONG = {"s8": "int8_t", "f32": "memplan_f32"}


def function_name(form: str, x: str, w: str, dtype: str) -> str:
    """Returns the name of the function for elements of two dtypes and sums of one.

    The form is `dots` or `windows`. `dots_s8` has sums of int32, and `dots_s8_s8_f32` adds the products as floats.
    """
    if x != w:
        return f"{form}_{_SHORT[x]}_{_SHORT[w]}"
    return f"{form}_{_SHORT[x]}" if x == dtype or dtype == "int32" else f"{form}_{_SHORT[x]}_{_SHORT[w]}_f32"


def has_zero(x: str) -> bool:
    """Whether the function takes a zero point of x, of the given dtype."""
    return x == "int8"


def functions(names: Iterable[str]) -> list[str]:
    """Returns the texts of the functions with the given names."""
    found = []
    for name in sorted(names):
        form, x, *rest = name.split("_")
        w = rest[0] if rest else x
        total = "int32_t" if x == "s8" and not rest else "float"
        cast = "(float)" if w == "s8" and total == "float" else ""
        four = "\n".join(
            f"{' ' * 16}a{k} += {_value(f'xs[{k}]', x, total)} * {cast}ws[{k}];" for k in range(RESULTS_AT_ONCE)
        )
        text = _DOTS if form == "dots" else _WINDOWS
        found.append(
            text.format(
                name=name,
                sum=total,
                x=_LONG[x],
                w=_LONG[w],
                zero_parameter=" int32_t x_zero," if x == "s8" else "",
                x_value=_value("x[i * x_step]", x, total),
                x_window=_value("x[k + i * x_row + j * x_step]", x, total),
                cast=cast,
                simd=_DOTS_SIMD if total == "int32_t" else "",
                four=_WINDOWS_SIMD.format(plain=four) if total == "int32_t" else four,
            )
        )
    return found


def _value(element: str, x: str, total: str) -> str:
    if x == "f32":
        return element
    return f"(float)({element} - x_zero)" if total == "float" else f"({element} - x_zero)"
