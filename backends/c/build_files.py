"""The files beside an exported model that are the same for all: its test program and what builds it."""

MAIN = """\
/* Runs the model once on the stored input and compares its results with those of JAX. With the argument --time, runs it
   again, and prints how long each step takes. On the board it prints the instructions of each step. */
#include <math.h>
#include <stdio.h>
#include <string.h>
#ifdef MODEL_TIMES
#include <time.h>
#endif

#include "model.h"
#include "test_data.h"

static int failures;

static void report(const char *name, unsigned long elements, unsigned long wrong, double largest, int is_too_much)
{
    failures += is_too_much;
    printf("%s: %lu of %lu differ, by at most %.9g", name, wrong, elements, largest);
    printf(is_too_much ? ": FAILED\\n" : "\\n");
}

#define COMPARE_INTEGERS(dtype, type) \\
    static void compare_##dtype(const char *name, const type *found, const type *expected, unsigned long n, int most) \\
    { \\
        unsigned long wrong = 0; \\
        int64_t largest = 0; \\
        for (unsigned long i = 0; i < n; i++) { \\
            const int64_t difference = (int64_t)found[i] - (int64_t)expected[i]; \\
            const int64_t size = difference < 0 ? -difference : difference; \\
            wrong += size != 0; \\
            largest = size > largest ? size : largest; \\
        } \\
        report(name, n, wrong, (double)largest, largest > most); \\
    }

#ifdef COMPARES_BOOL
COMPARE_INTEGERS(bool, uint8_t)
#endif
#ifdef COMPARES_INT8
COMPARE_INTEGERS(int8, int8_t)
#endif
#ifdef COMPARES_UINT8
COMPARE_INTEGERS(uint8, uint8_t)
#endif
#ifdef COMPARES_INT16
COMPARE_INTEGERS(int16, int16_t)
#endif
#ifdef COMPARES_UINT16
COMPARE_INTEGERS(uint16, uint16_t)
#endif
#ifdef COMPARES_INT32
COMPARE_INTEGERS(int32, int32_t)
#endif
#ifdef COMPARES_UINT32
COMPARE_INTEGERS(uint32, uint32_t)
#endif

#ifdef COMPARES_FLOAT
/* Sums of floats have another order in JAX. */
static void compare_float(const char *name, const float *found, const float *expected, unsigned long n, int allowed)
{
    unsigned long wrong = 0;
    float largest = 0.0f, scale = 0.0f;
    int is_too_much = 0;
    (void)allowed;
    for (unsigned long i = 0; i < n; i++) {
        if (isfinite(expected[i]) && fabsf(expected[i]) > scale) {
            scale = fabsf(expected[i]);
        }
    }
    for (unsigned long i = 0; i < n; i++) {
        const int is_same = found[i] == expected[i] || (found[i] != found[i] && expected[i] != expected[i]);
        const float size = is_same ? 0.0f : fabsf(found[i] - expected[i]);
        wrong += !is_same;
        is_too_much |= !(size <= 1e-4f * scale + 1e-6f);
        largest = size > largest ? size : largest;
    }
    report(name, n, wrong, (double)largest, is_too_much);
}
#endif

#define COMPARE(name, expected, compare, allowed) \\
    compare(#name, model_##name(), expected, (unsigned long)(sizeof expected / sizeof expected[0]), allowed);

#ifdef MODEL_TIMES
static void print_times(void)
{
    static double seconds[MODEL_STEPS + 1u];
    const int runs = 10;
    for (int run = 0; run < runs; run++) {
        model_init();
        WRITE_INPUTS
        for (uint32_t step = 0; step < MODEL_STEPS; step++) {
            const clock_t start = clock();
            model_step(step);
            seconds[step] += (double)(clock() - start) / CLOCKS_PER_SEC;
        }
    }
    for (uint32_t step = 0; step < MODEL_STEPS; step++) {
        printf("%.9f %s\\n", seconds[step] / runs, model_step_name(step));
    }
}
#endif

#ifdef MODEL_COUNTS
uint64_t board_instructions(void);
static uint64_t counts[MODEL_STEPS + 1u];

static void run(void)
{
    for (uint32_t step = 0; step < MODEL_STEPS; step++) {
        const uint64_t before = board_instructions();
        model_step(step);
        counts[step] = board_instructions() - before;
    }
}

static void print_counts(void)
{
    for (uint32_t step = 0; step < MODEL_STEPS; step++) {
        printf("%lu instructions %s\\n", (unsigned long)counts[step], model_step_name(step));
    }
}
#else
static void run(void) { model_run(); }
#endif

int main(int argc, char **argv)
{
    model_init();
    WRITE_INPUTS
    run();
    EACH_OUTPUT(COMPARE)
    printf(failures ? "FAILED\\n" : "ok\\n");
#ifdef MODEL_COUNTS
    print_counts();
#endif
#ifdef MODEL_TIMES
    if (argc > 1 && strcmp(argv[1], "--time") == 0) {
        print_times();
    }
#else
    (void)argc;
    (void)argv;
#endif
    return failures != 0;
}
"""

CMAKE_LISTS = """\
# The model as a library, and a program that compares one run with JAX.
#
#   cmake -S . -B build && cmake --build build && build/model_test
#
# For the board mps2-an500 (Cortex-M7) in qemu:
#
#   cmake -S . -B board-build -DBOARD=mps2_an500 -DCMAKE_TOOLCHAIN_FILE=board/arm-none-eabi.cmake
#   cmake --build board-build
#   qemu-system-arm -M mps2-an500 -nographic -semihosting -icount shift=0 -kernel board-build/model_test
cmake_minimum_required(VERSION 3.13)
project(model C)

set(CMAKE_C_STANDARD 99)
if(NOT CMAKE_BUILD_TYPE)
  set(CMAKE_BUILD_TYPE Release)
endif()

add_library(model STATIC model.c)
target_include_directories(model PUBLIC ${CMAKE_CURRENT_SOURCE_DIR})
# A product and a sum are rounded one by one, as in JAX.
target_compile_options(model PRIVATE -Wall -Wextra -ffp-contract=off)
target_compile_definitions(model PRIVATE MODEL_STEP_NAMES)

add_executable(model_test main.c)
if(BOARD)
  target_sources(model_test PRIVATE board/${BOARD}.c)
  target_compile_definitions(model_test PRIVATE MODEL_COUNTS)
  target_link_options(model_test PRIVATE -nostartfiles --specs=nosys.specs
    -T ${CMAKE_CURRENT_SOURCE_DIR}/board/${BOARD}.ld)
else()
  target_compile_definitions(model_test PRIVATE MODEL_TIMES)
endif()
target_link_libraries(model_test PRIVATE model m)
"""
