"""Variants of a program with its tensors in other places, to which the cost model is fitted and by which it is judged.

    default              as the compiler places them
    slow                 everything in HBM
    no cross-program     no argument stays in fast memory from run to run, where one did
    random N             some random values compete for the fast memory first, in random order, and some last

None of them changes what an instruction does or how much fast memory it may keep for itself, so any two variants are a
pair of observations of every instruction.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator

from memplan.backends.tpu.compile import CompileError, TpuCompiler
from memplan.backends.tpu.devices import TOPOLOGY_OF_TARGET
from memplan.backends.tpu.steering import SORT_ORDER, sort_order
from memplan.compiler.frontends import parse_hlo
from memplan.compiler.hardware.target import Target
from memplan.compiler.ir import Graph
from memplan.compiler.mapping.build import build_problem
from memplan.compiler.mapping.problem import MappingProblem

# Workloads of different kinds that compile in seconds.
CHEAP = (
    "decode_kv",
    "lstm",
    "lstm_train",
    "mamba",
    "mlp_mixer",
    "moe",
    "neural_ode",
    "resnet50_infer",
    "transformer_infer",
)


def variants(
    module: bytes,
    target: Target,
    compiler: TpuCompiler,
    num_random: int,
    note: Callable[[str], None] = lambda _: None,
) -> Iterator[tuple[str, Graph]]:
    """Yields the variants of a program with their names, compiled, the default first.

    Args:
      module: StableHLO as MLIR bytecode.
      target: a TPU for which there is a compiler.
      compiler: compiles them, or has them in its cache.
      num_random: how many there are with values in random order.
      note: is called with a message for each variant that cannot be compiled; it is left out.

    Raises:
      CompileError: the default cannot be compiled.
    """
    topology = TOPOLOGY_OF_TARGET[target.name]
    text = compiler.compile(module, topology).text
    graph = parse_hlo(text)
    problem = build_problem(graph, target)
    yield "default", graph
    options = {"slow": {"xla_msa_enable": "false"}}
    if "cross_program_prefetch_index" in text:
        options["no cross-program"] = {"xla_msa_max_cross_program_prefetches": "0"}
    for seed in range(num_random):
        options[f"random {seed}"] = {SORT_ORDER: random_order(problem, seed)}
    for name, chosen in options.items():
        try:
            compiled = compiler.compile(module, topology, chosen)
        except CompileError as error:
            note(f"{target.name}: {name}: {error}")
        else:
            yield name, parse_hlo(compiled.text)


def random_order(problem: MappingProblem, seed: int) -> str:
    """Returns the override by which a third of the values compete for the fast memory first, another third last."""
    source = random.Random(seed)
    buffers = [number for number, buffer in enumerate(problem.buffers) if len(buffer.spaces) > 1]
    source.shuffle(buffers)
    third = len(buffers) // 3
    return sort_order(problem, buffers[:third], buffers[third : 2 * third])
