"""Methods that answer a MappingProblem, one file each. Read `planner.py` first.

>>> from memplan import planners
>>> planners.names()
['agent', 'auto', 'bestfit', 'evolution', 'greedy', 'hybrid', 'ilp', 'search', 'slow', 'xla']
"""

from memplan.planners.planner import Budget, Effort, Planner, get, names, register

__all__ = ["Budget", "Effort", "Planner", "get", "names", "register"]
