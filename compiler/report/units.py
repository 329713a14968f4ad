"""Bytes, seconds and ratios as people read them."""

from __future__ import annotations

import math

_BYTES = ("B", "KiB", "MiB", "GiB", "TiB")
_SECONDS = ((1.0, "s"), (1e-3, "ms"), (1e-6, "µs"), (1e-9, "ns"))


def print_bytes(size: float) -> str:
    """Returns a number of bytes with three significant digits and a binary unit.

    >>> print_bytes(134217728), print_bytes(1536), print_bytes(12)
    ('128 MiB', '1.50 KiB', '12 B')
    """
    unit = 0
    while abs(size) >= 1000 and unit < len(_BYTES) - 1:
        size /= 1024
        unit += 1
    return f"{_three_digits(size) if unit else format(size, '.0f')} {_BYTES[unit]}"


def print_count(count: float) -> str:
    """Returns a number of things with three significant digits and a decimal prefix.

    >>> print_count(25557032), print_count(3.2e12), print_count(12)
    ('25.6 M', '3.20 T', '12')
    """
    for scale, prefix in ((1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if count >= scale:
            return f"{_three_digits(count / scale)} {prefix}"
    return f"{count:.0f}"


def print_seconds(seconds: float) -> str:
    """Returns a time with three significant digits and a fitting unit.

    >>> print_seconds(0.02731), print_seconds(4.2e-7), print_seconds(0.0)
    ('27.3 ms', '420 ns', '0 s')
    """
    if seconds == 0:
        return "0 s"
    for scale, unit in _SECONDS:
        # The limit is that of rounding, so that 999.9 µs is not "1,000 µs".
        if abs(seconds) >= 0.9995 * scale or unit == "ns":
            return f"{_three_digits(seconds / scale)} {unit}"
    raise AssertionError


def print_cycles(seconds: float, clock: float) -> str:
    """Returns a time in cycles of a clock, with thousands separated; "" where there is no clock.

    >>> print_cycles(1e-6, 940e6)
    '940'
    """
    return f"{seconds * clock:,.0f}" if clock else ""


def print_frequency(hertz: float) -> str:
    """Returns a clock rate.

    >>> print_frequency(940e6), print_frequency(1.75e9)
    ('940 MHz', '1.75 GHz')
    """
    for scale, unit in ((1e9, "GHz"), (1e6, "MHz"), (1e3, "kHz")):
        if hertz >= scale:
            return f"{_three_digits(hertz / scale)} {unit}"
    return f"{_three_digits(hertz)} Hz"


def print_percent(ratio: float) -> str:
    """Returns a difference as a signed percentage.

    >>> print_percent(0.0312), print_percent(-0.5), print_percent(0)
    ('+3.1 %', '-50.0 %', '0.0 %')
    """
    text = f"{100 * ratio:+,.1f} %"
    return "0.0 %" if text in ("+0.0 %", "-0.0 %") else text


def ratio(value: float, base: float) -> float:
    """Returns `value / base`. Two zeros are equal, so their ratio is 1; a positive value over zero is infinite.

    A program that computes nothing takes no time, so no latency may be divided by without this.

    >>> ratio(3.0, 2.0), ratio(0.0, 0.0), ratio(1.0, 0.0)
    (1.5, 1.0, inf)
    """
    if base == 0:
        return 1.0 if value == 0 else math.inf
    return value / base


def _three_digits(value: float) -> str:
    magnitude = abs(value)
    digits = 0 if magnitude >= 99.95 else 1 if magnitude >= 9.995 else 2
    return f"{value:,.{digits}f}"
