"""The planner `search`: simulated annealing. `solve.py` is its entry."""
