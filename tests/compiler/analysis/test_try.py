from hypothesis import given, settings, strategies as st, HealthCheck
from strategies import graphs
from memplan.compiler.analysis.flatten import flatten
from analysis.machine import Machine
import random
@settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))
@given(graphs(), st.integers(0,2**32))
def test_x(graph, seed):
    p=flatten(graph)
    r=random.Random(seed)
    Machine(p, lambda: r.randint(0,3), lambda n: r.randrange(n)).run()
