"""The planner `auto`: a portfolio of planners. Its entry is `solve.py`."""
