"""What runs an exported model on the board mps2-an500, a Cortex-M7, as qemu emulates it.

Memories and clocks: Arm, "Application Note AN500" (SSRAM1 at 0, SSRAM2 and 3 at 0x20000000, a timer of 25 MHz at
0x40000000). Output: Arm, "Semihosting for AArch32 and AArch64". Instructions: by `-icount shift=0` each one takes a
nanosecond of qemu's clock, from which its timers run.
"""

_LINKER_SCRIPT = """\
/* Code and constants in SSRAM1, which stands for flash; data in SSRAM2 and 3. */
ENTRY(reset_handler)

MEMORY
{
    FLASH (rx) : ORIGIN = 0x00000000, LENGTH = 4M
    RAM (rwx) : ORIGIN = 0x20000000, LENGTH = 4M
}

SECTIONS
{
    .text :
    {
        KEEP(*(.vectors))
        *(.text*)
        *(.rodata*)
    } > FLASH

    .ARM.exidx : { *(.ARM.exidx*) } > FLASH

    .data : ALIGN(4)
    {
        data_start = .;
        *(.data*)
        . = ALIGN(4);
        data_end = .;
    } > RAM AT > FLASH
    data_load = LOADADDR(.data);

    .bss (NOLOAD) : ALIGN(4)
    {
        bss_start = .;
        *(.bss*)
        *(COMMON)
        . = ALIGN(4);
        bss_end = .;
    } > RAM

    end = .;
    stack_top = ORIGIN(RAM) + LENGTH(RAM);
}
"""

_STARTUP = """\
/* Start-up for the board mps2-an500 (Cortex-M7): the floating-point unit, data and bss, output by semihosting, and
   a count of instructions. */
#include <stdint.h>

extern uint32_t data_start, data_end, data_load, bss_start, bss_end, stack_top;
int main(int argc, char **argv);
int fflush(void *stream);
int _write(int file, const char *text, int size);
void _exit(int status);
uint64_t board_instructions(void);
void reset_handler(void);
void fault_handler(void);

enum { SYS_WRITEC = 0x03, SYS_EXIT_EXTENDED = 0x20, ADP_STOPPED_APPLICATION_EXIT = 0x20026 };

static int semihosting(int operation, const void *argument)
{
    register int r0 __asm__("r0") = operation;
    register const void *r1 __asm__("r1") = argument;
    __asm__ volatile("bkpt 0xab" : "+r"(r0) : "r"(r1) : "memory");
    return r0;
}

int _write(int file, const char *text, int size)
{
    (void)file;
    for (int i = 0; i < size; i++) {
        semihosting(SYS_WRITEC, &text[i]);
    }
    return size;
}

void _exit(int status)
{
    const uint32_t block[2] = {ADP_STOPPED_APPLICATION_EXIT, (uint32_t)status};
    for (;;) {
        semihosting(SYS_EXIT_EXTENDED, block);
    }
}

/* Timer 0 counts down, a tick in 40 ns. In qemu with -icount shift=0 an instruction takes one. */
static volatile uint32_t *const timer = (volatile uint32_t *)0x40000000;

uint64_t board_instructions(void)
{
    return (uint64_t)(UINT32_MAX - timer[1]) * 40u;
}

void fault_handler(void)
{
    _exit(99);
}

void reset_handler(void)
{
    volatile uint32_t *const coprocessors = (volatile uint32_t *)0xE000ED88;
    *coprocessors |= 0xFu << 20;
    __asm__ volatile("dsb\\nisb");
    for (uint32_t *to = &data_start, *from = &data_load; to < &data_end;) {
        *to++ = *from++;
    }
    for (uint32_t *to = &bss_start; to < &bss_end;) {
        *to++ = 0;
    }
    timer[2] = UINT32_MAX;
    timer[1] = UINT32_MAX;
    timer[0] = 1u;
    const int status = main(0, 0);
    fflush(0);
    _exit(status);
}

typedef void (*handler)(void);

static const struct {
    void *stack;
    handler handlers[15];
} vectors __attribute__((section(".vectors"), used)) = {
    &stack_top,
    {reset_handler, fault_handler, fault_handler, fault_handler, fault_handler, fault_handler},
};
"""

_TOOLCHAIN = """\
set(CMAKE_SYSTEM_NAME Generic)
set(CMAKE_SYSTEM_PROCESSOR arm)
set(CMAKE_C_COMPILER arm-none-eabi-gcc)
set(CMAKE_TRY_COMPILE_TARGET_TYPE STATIC_LIBRARY)
set(CMAKE_C_FLAGS_INIT "-mcpu=cortex-m7 -mthumb -mfpu=fpv5-sp-d16 -mfloat-abi=hard -ffunction-sections")
"""

BOARD_FILES = {
    "board/mps2_an500.ld": _LINKER_SCRIPT,
    "board/mps2_an500.c": _STARTUP,
    "board/arm-none-eabi.cmake": _TOOLCHAIN,
}
"""Files by their paths."""
