from memplan.compiler.report.report import Report
from memplan.compiler.report.tables import report_text


def test_the_whole_text(report: Report) -> None:
    assert report_text(report).splitlines()[:9] == [
        "tiny on test-chip, 1.00 kHz: 8 operations, 5 buffers",
        "",
        "                          latency  cycles  gap to bound  waiting  copies  copied  peak hbm  peak vmem",
        "all in hbm                 9.40 s   9,400      +240.6 %      0 s       0     0 B     340 B       30 B",
        "by-hand                    5.70 s   5,700      +106.5 %   800 ms       1    80 B     340 B       90 B",
        "bound that no plan beats   2.76 s   2,760",
        "The bound is the latency with all memories large enough.",
        "",
        "The 4 buffers that cost most, and why they are where they are",
    ]


def test_the_most_costly_buffer(report: Report) -> None:
    text = report_text(report)
    assert " 1. r  200 B result in hbm: costs 1.80 s (31.6 % of the latency)\n     - its 200 B do not fit vmem" in text


def test_a_long_reason_hangs_under_its_beginning(report: Report) -> None:
    lines = report_text(report).splitlines()
    wrapped = [line for line in lines if line.startswith("       ") and not line.lstrip().startswith("-")]
    assert wrapped, "no reason is long enough to be wrapped: make one longer"
    assert all(len(line) <= 140 for line in lines)
