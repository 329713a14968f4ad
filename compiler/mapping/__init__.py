"""The planning problem and its answer: types that planners, the agent and the command line share.

Read `problem.py`, then `plan.py`; `verify.py` says what makes a plan valid, and shares no code with any planner.
"""
