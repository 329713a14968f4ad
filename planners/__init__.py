"""Methods that answer a MappingProblem, one file each. Read `planner.py` first.

>>> from memplan import planners
>>> planners.names()
['bestfit', 'greedy', 'slow', 'xla']
"""

from memplan.planners.planner import Budget, Planner, get, names, register

__all__ = ["Budget", "Planner", "get", "names", "register"]
