"""The rules that inner loops call, compiled by numba: those of `rules.py`, and the roofline."""

from __future__ import annotations

from memplan.compiler.hardware import roofline
from memplan.compiler.kernels import inlined
from memplan.planners.stays import rules

duration = inlined(roofline.duration)
idle_fraction = inlined(roofline.idle_fraction)
writer_to_evict = inlined(rules.writer_to_evict)
until_next_run = inlined(rules.until_next_run)
