"""The planner `evolution`: genetic search for decisions. `solve.py` is its entry."""
