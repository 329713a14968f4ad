import pytest

from memplan.compiler.report.units import print_bytes, print_cycles, print_percent, print_seconds


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "0.98 KiB"),
        (1024, "1.00 KiB"),
        (10 * 1024, "10.0 KiB"),
        (134217728, "128 MiB"),
        (16 * 2**30, "16.0 GiB"),
        (5000 * 2**40, "5,000 TiB"),
    ],
)
def test_bytes(size: int, text: str) -> None:
    assert print_bytes(size) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.0, "0 s"),
        (3.14159, "3.14 s"),
        (120.0, "120 s"),
        (0.02731, "27.3 ms"),
        (999.4e-6, "999 µs"),
        (999.96e-6, "1.00 ms"),
        (4.2e-7, "420 ns"),
        (2e-12, "0.00 ns"),
        (-0.5, "-500 ms"),
    ],
)
def test_seconds(seconds: float, text: str) -> None:
    assert print_seconds(seconds) == text


def test_cycles_need_a_clock() -> None:
    assert print_cycles(0.001, 940e6) == "940,000"
    assert print_cycles(0.001, 0.0) == ""


def test_percent() -> None:
    assert print_percent(0.031) == "+3.1 %"
    assert print_percent(-0.0312) == "-3.1 %"
    assert print_percent(0.0001) == "0.0 %"
    assert print_percent(-0.0001) == "0.0 %"
    assert print_percent(12.5) == "+1,250.0 %"
