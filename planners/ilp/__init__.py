"""The planner `ilp`: integer programming, and the relaxation that bounds come from. `solve.py` is its entry."""
