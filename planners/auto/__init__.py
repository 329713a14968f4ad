"""The planner `auto`: a portfolio of planners. `solve.py` is its entry."""
