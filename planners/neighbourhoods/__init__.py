"""The planner `neighbourhoods`: windows of a plan, each packed again. Its entry is `solve.py`."""
