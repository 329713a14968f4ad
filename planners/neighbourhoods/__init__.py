"""The planner `neighbourhoods`: windows of a plan, each decided again exactly. Its entry is `solve.py`."""
