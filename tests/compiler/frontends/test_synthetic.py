import pytest

from memplan.compiler.frontends import parse_hlo
from memplan.compiler.frontends.synthetic import synthetic_hlo
from memplan.compiler.ir.printer import print_graph
from memplan.compiler.ir.trip_count import trip_count


@pytest.mark.parametrize("count", [1, 2, 49, 50, 51, 99, 100, 333, 1000, 5000])
def test_exactly_as_many_instructions(count: int) -> None:
    graph = parse_hlo(synthetic_hlo(count))
    assert sum(1 for _ in graph.instructions()) == count
    assert graph.is_scheduled
    assert graph.warnings == ()


def test_equal_seeds_give_equal_text_and_others_do_not() -> None:
    assert synthetic_hlo(700, seed=3) == synthetic_hlo(700, seed=3)
    assert synthetic_hlo(700, seed=3) != synthetic_hlo(700, seed=4)


@pytest.mark.parametrize("count", [1, 60, 2000])
def test_printed_as_xla_prints_and_taken_by_its_parser(count: int) -> None:
    from jaxlib import _hlo

    text = synthetic_hlo(count)
    assert print_graph(parse_hlo(text)) == text
    module = _hlo.hlo_module_from_text(text)
    assert module.name == "jit_step"


def test_like_a_real_module() -> None:
    graph = parse_hlo(synthetic_hlo(10_000))
    entry = graph.entry_computation
    share = len(entry.instructions) / 10_000
    assert 0.2 < share < 0.35
    opcodes = {i.opcode for i in entry.instructions}
    assert {"fusion", "copy-start", "copy-done", "slice-start", "custom-call", "while", "bitcast", "tuple"} <= opcodes
    loop = next(i for i in entry.instructions if i.opcode == "while")
    assert trip_count(graph, loop, entry) == (16.0, True)
    # Every weight is updated in place, and memory is that of one chip.
    updated = [entry.instructions[entry.parameters[alias.parameter]].name for alias in graph.aliases]
    assert len(updated) == len(set(updated)) == len(entry.parameters) - 2
    fusions = [i for i in entry.instructions if i.opcode == "fusion"]
    assert all('"estimated_cycles":"' in i.attribute("backend_config") and i.source.op_name for i in fusions)
    assert {i.shape.memory_space for i in fusions if not i.shape.is_tuple} == {0, 1}


def test_no_negative_sizes() -> None:
    with pytest.raises(ValueError, match="at least 1 instruction, not 0"):
        synthetic_hlo(0)
