"""The header of functions on scalars that the exported loop nests use."""

from memplan.backends.c.sum_functions import SIMD_OPERATORS

_SCALARS = """\
/* Scalars with the meaning that XLA gives them: integers wrap, conversions saturate, and no shift is too wide. */
#ifndef MEMPLAN_OPERATORS_H
#define MEMPLAN_OPERATORS_H

#include <math.h>
#include <stdint.h>

/* The arena holds values of different types at one address, one after the other. Compilers that assume otherwise need
   an option that turns the assumption off, such as -fno-strict-aliasing, where they have no such attribute. */
#if defined(__GNUC__)
#define MEMPLAN_MAY_ALIAS __attribute__((may_alias))
#else
#define MEMPLAN_MAY_ALIAS
#endif
typedef float MEMPLAN_MAY_ALIAS memplan_f32;
typedef int32_t MEMPLAN_MAY_ALIAS memplan_i32;
typedef uint32_t MEMPLAN_MAY_ALIAS memplan_u32;
typedef int16_t MEMPLAN_MAY_ALIAS memplan_i16;
typedef uint16_t MEMPLAN_MAY_ALIAS memplan_u16;

static inline int32_t larger(int32_t a, int32_t b) { return a > b ? a : b; }
static inline int32_t smaller(int32_t a, int32_t b) { return a < b ? a : b; }

static inline uint8_t get_bit(const uint8_t *bits, int32_t i) { return (uint8_t)((bits[i >> 3] >> (i & 7)) & 1); }
static inline void put_bit(uint8_t *bits, int32_t i, int value)
{
    const int bit = 1 << (i & 7);
    bits[i >> 3] = (uint8_t)(value ? bits[i >> 3] | bit : bits[i >> 3] & ~bit);
}

/* What is not a number stays so. */
static inline float max_float32(float a, float b) { return a > b || a != a ? a : b; }
static inline float min_float32(float a, float b) { return a < b || a != a ? a : b; }
static inline int32_t max_int32(int32_t a, int32_t b) { return a > b ? a : b; }
static inline int32_t min_int32(int32_t a, int32_t b) { return a < b ? a : b; }
static inline uint32_t max_uint32(uint32_t a, uint32_t b) { return a > b ? a : b; }
static inline uint32_t min_uint32(uint32_t a, uint32_t b) { return a < b ? a : b; }
static inline float sign_float32(float a) { return a > 0.0f ? 1.0f : a < 0.0f ? -1.0f : a; }
static inline int32_t abs_int32(int32_t a) { return a < 0 ? (int32_t)(0u - (uint32_t)a) : a; }

static inline int32_t f32_to_int(float a, int32_t low, int32_t high)
{
    if (a > (float)low && a < (float)high) {
        return (int32_t)a;
    }
    return a <= (float)low ? low : a >= (float)high ? high : 0;
}
static inline int32_t f32_to_int32(float a)
{
    return a >= 2147483648.0f ? INT32_MAX : a <= -2147483648.0f ? INT32_MIN : a == a ? (int32_t)a : 0;
}
static inline uint32_t f32_to_uint32(float a)
{
    return a >= 4294967296.0f ? UINT32_MAX : a > 0.0f ? (uint32_t)a : 0u;
}

static inline int32_t div_int32(int32_t a, int32_t b)
{
    return b == 0 ? -1 : b == -1 ? (int32_t)(0u - (uint32_t)a) : a / b;
}
static inline int32_t rem_int32(int32_t a, int32_t b) { return b == 0 ? a : b == -1 ? 0 : a % b; }
static inline uint32_t div_uint32(uint32_t a, uint32_t b) { return b == 0u ? UINT32_MAX : a / b; }
static inline uint32_t rem_uint32(uint32_t a, uint32_t b) { return b == 0u ? a : a % b; }

static inline uint32_t shift_left(uint32_t a, uint32_t b, uint32_t bits) { return b < bits ? a << b : 0u; }
static inline uint32_t shift_right_logical(uint32_t a, uint32_t b, uint32_t bits) { return b < bits ? a >> b : 0u; }
static inline int32_t shift_right_arithmetic(int32_t a, uint32_t b, uint32_t bits)
{
    const uint32_t shift = b < bits ? b : bits - 1u;
    return a < 0 ? (int32_t)~(~(uint32_t)a >> shift) : (int32_t)((uint32_t)a >> shift);
}

"""

OPERATORS_HEADER = f"{_SCALARS}{SIMD_OPERATORS}\n#endif\n"
