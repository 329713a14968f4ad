"""Sets the order of execution through JAX's hook behind the compiler's scheduler, in a way that is safe to use.

    with ordering(memory_order, platform="cpu", module="jit_step") as outcome:
        step(x)
    print(outcome)

XLA calls each function that is registered with `jax.extend.xla.register_hlo_module_transformation` for every module
that the process compiles, on any thread, and JAX's caches know nothing of it. A compile is therefore marked where it
begins, on the thread that asked for it, and only marked modules are changed:

    thread in `ordering` ── compile_or_get_cached ─┬─ marked copy ── XLA ── hook: is the mark in it? ── rule, check, set
    any other thread ──────────────────────────────┴─ persistent cache ── XLA ── hook: no mark, left alone

The mark is an attribute of the module, which the compiler carries along and which changes nothing else. A marked
compile bypasses the persistent cache: it is neither read from there nor written there. An executable that `jax.jit`
already holds is not compiled again, neither in a block nor after it; `outcome.modules` is empty then.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from memplan.backends.compile_hook import CompileRequest, intercepting, untouched
from memplan.compiler.errors import MemplanError
from memplan.compiler.frontends import hlo_proto
from memplan.compiler.frontends.protobuf import read_message, string
from memplan.compiler.ir.graph import Computation, Graph
from memplan.compiler.ir.memory_order import scheduled

Orders = Mapping[str, Sequence[str]]  # by computation, the names of its instructions in order of execution
Rule = Callable[[Graph], Orders | None]

_SINCE = {"cpu": (0, 10, 2), "tpu": (0, 12, 0)}  # the first jax and jaxlib that call back, by platform
_MARK = "memplan_order"
_FRONTEND_ATTRIBUTES = "mhlo.frontend_attributes"


class OrderError(MemplanError):
    """An order that does not fit the module or is not legal, or a JAX in which no order can be set."""


@dataclass(frozen=True)
class ModuleOutcome:
    """The result of ordering one module.

    Attributes:
      module: its name, such as `jit_step`.
      changed: names of the computations that run in another order now.
      refused: why the module was left unchanged; "" if nothing was wrong.
    """

    module: str
    changed: tuple[str, ...] = ()
    refused: str = ""

    def __str__(self) -> str:
        if self.refused:
            return f"{self.module}: left as it was: {self.refused}"
        return f"{self.module}: {', '.join(self.changed) if self.changed else 'nothing'} reordered"


@dataclass
class OrderOutcome:
    """The modules that were compiled in an `ordering` block, in the order of their compiles."""

    modules: list[ModuleOutcome] = field(default_factory=list)

    @property
    def changed(self) -> list[ModuleOutcome]:
        return [module for module in self.modules if module.changed]

    @property
    def refused(self) -> list[ModuleOutcome]:
        return [module for module in self.modules if module.refused]

    def __str__(self) -> str:
        return "\n".join(map(str, self.modules)) or "nothing was compiled: is it compiled already?"


def is_supported(platform: str) -> bool:
    """Tells whether the JAX that is installed calls back on a platform, without importing it.

    >>> is_supported("cpu"), is_supported("abacus")
    (True, False)
    """
    since = _SINCE.get(platform)
    try:
        return since is not None and all(_release(version(package)) >= since for package in ("jax", "jaxlib"))
    except PackageNotFoundError:
        return False


def _release(text: str) -> tuple[int, ...]:
    numbers = []
    for part in text.split(".")[:3]:
        if not part.isdigit():
            break
        numbers.append(int(part))
    return tuple(numbers)


def memory_order(graph: Graph) -> Orders:
    """A rule: the order with the lowest peak that `memplan.compiler.ir.memory_order` finds.

    Computations whose peak would not fall keep theirs.
    """
    better = scheduled(graph).computations
    return {
        name: [instruction.name for instruction in better[name].instructions]
        for name, computation in graph.computations.items()
        if better[name] is not computation and list(better[name].index) != list(computation.index)
    }


def fixed_order(orders: Orders) -> Rule:
    """Makes a rule of a planned order, which must name exactly the instructions that the module has."""
    kept = {name: tuple(order) for name, order in orders.items()}
    return lambda graph: kept


@contextmanager
def ordering(rule: Rule, *, platform: str, module: str | None = None) -> Iterator[OrderOutcome]:
    """Within the block, what this thread compiles for a platform runs in the order that a rule returns.

    Where blocks are nested, the innermost one counts. If anything goes wrong with an order, such as an exception in the
    rule, the module stays as XLA scheduled it, and the outcome says why.

    Args:
      rule: is given a scheduled module and returns, for each computation that is to run in another order, the names of
        all of its instructions in that order; None to leave the module unchanged. It may run on any thread.
      platform: "cpu", or "tpu" once a TPU or a TPU topology was asked for.
      module: name of the one module that is meant, such as `jit_step`; None for all, including JAX's own small ones.

    Raises:
      OrderError: the JAX that is installed does not call back on that platform.
    """
    outcome = OrderOutcome()
    block = _OrderBlock(platform, module, uuid.uuid4().hex)

    def transform(content: bytes) -> bytes | None:
        if block.token.encode() not in content:
            return None
        with untouched():
            changed, of_module = reorder(content, rule)
        outcome.modules.append(of_module)
        return changed

    with hooked(transform, platform), intercepting(block):
        yield outcome


@contextmanager
def hooked(callback: Callable[[bytes], bytes | None], platform: str, module: str | None = None) -> Iterator[None]:
    """Within the block, XLA shows every scheduled module of the process to a callback.

    Args:
      callback: is given a HloModuleProto; its result, if not None, replaces the module, and its exceptions end the
        compile. It may run on any thread.
      platform: see `ordering`.
      module: name of the modules to show; all if None.

    Raises:
      OrderError: the JAX that is installed does not call back on that platform.
    """
    if not is_supported(platform):
        if platform not in _SINCE:
            raise OrderError(f"no order can be set on {platform!r}: known are {', '.join(_SINCE)}")
        needed = ".".join(map(str, _SINCE[platform]))
        raise OrderError(f"setting the order on {platform!r} needs jax and jaxlib {needed} or newer")
    from jax.extend import xla

    def called(content: bytes) -> bytes | None:
        if module is not None and string(read_message(content), 1) != module:
            return None
        return callback(content)

    name = f"memplan-{uuid.uuid4().hex}"
    stage = xla.PipelineStage.POST_SCHEDULER
    try:
        xla.register_hlo_module_transformation(called, name=name, stage=stage, platforms=platform)
    except Exception as error:  # a plugin that is not loaded; the type differs between versions
        first = " (ask for the topology first)" if platform == "tpu" else ""
        raise OrderError(f"jax lets no order be set on {platform!r}{first}: {_first_line(error)}") from None
    try:
        yield
    finally:
        xla.clear_hlo_module_transformation(name, stage, platform)


def reorder(content: bytes, rule: Rule) -> tuple[bytes | None, ModuleOutcome]:
    """Returns a scheduled HloModuleProto in the order that a rule returns, None if it is unchanged; and the outcome.

    It never raises: the outcome says what is wrong.
    """
    from jaxlib import _hlo

    name = "?"
    try:
        module = _hlo.HloModule.from_serialized_hlo_module_proto(content)
        name = module.name
        schedule = module.schedule()
        schedule.update()  # a TPU's has empty sequences for the bodies of fusions, which run in no order
        module.set_schedule(schedule)
        graph = hlo_proto.parse(bytes(module.as_serialized_hlo_module_proto()), "the module being compiled")
        orders = rule(graph) or {}
        check_orders(graph, orders)
        places = {
            of: [graph.computations[of].index[instruction] for instruction in order] for of, order in orders.items()
        }
        places = {of: order for of, order in places.items() if order != list(range(len(order)))}
        changed = _rescheduled(module, places) if places else None
        return changed, ModuleOutcome(name, tuple(places))
    except Exception as error:  # it would become the error of the compile
        reason = str(error) if isinstance(error, MemplanError) else f"{type(error).__name__}: {_first_line(error)}"
        return None, ModuleOutcome(name, refused=reason)


def check_orders(graph: Graph, orders: Orders) -> None:
    """Raises OrderError if an order does not name exactly a computation's instructions, or breaks a dependence."""
    if orders and not graph.is_scheduled:
        raise OrderError(f"module {graph.name} is not scheduled")
    for name, order in orders.items():
        computation = graph.computations.get(name)
        if computation is None:
            raise OrderError(f"module {graph.name} has no computation {name!r}: the order is that of another module")
        _check_order(computation, order)


def _check_order(computation: Computation, order: Sequence[str]) -> None:
    place = {instruction: k for k, instruction in enumerate(order)}
    if len(place) < len(order):
        raise OrderError(f"{computation.name}: the order names an instruction twice")
    if unknown := next((instruction for instruction in order if instruction not in computation.index), None):
        raise OrderError(f"{computation.name}: the order names {unknown!r}, which is not there")
    for instruction in computation.instructions:
        if instruction.name not in place:
            raise OrderError(f"{computation.name}: the order leaves out {instruction.name!r}")
        for what, others in (("operand", instruction.operands), ("predecessor", instruction.control_predecessors)):
            for other in others:
                before = computation.instructions[other].name
                if place[before] > place[instruction.name]:
                    raise OrderError(f"{computation.name}: {instruction.name!r} runs before its {what} {before!r}")


def _rescheduled(module: Any, places: Mapping[str, Sequence[int]]) -> bytes:
    """Returns a module of jaxlib with computations in another order, given as places in the present order."""
    schedule = module.schedule()
    found = {computation.name: computation for computation in module.computations()}
    for name, order in places.items():
        try:
            sequence = schedule.sequence(found[name])
        except (KeyError, IndexError):
            raise OrderError(f"{name}: runs in no order of its own") from None
        schedule.set_sequence(found[name], [sequence[i] for i in order])
    schedule.verify()
    module.set_schedule(schedule)
    return bytes(module.as_serialized_hlo_module_proto())


@dataclass(frozen=True)
class _OrderBlock:
    """An `ordering` block.

    Attributes:
      token: the value of its mark, which is unique.
    """

    platform: str
    module: str | None
    token: str

    def compile(self, request: CompileRequest) -> Any:
        """Compiles a marked copy, past the persistent cache, if the module is meant."""
        if request.platform != self.platform or self.module not in (None, request.name):
            return request.proceed()
        from jax._src import compiler

        given = request.given
        return compiler.backend_compile_and_load(
            given["backend"],
            self._marked(request),
            given["executable_devices"],
            given["compile_options"],
            given["host_callbacks"],
        )

    def _marked(self, request: CompileRequest) -> Any:
        """Returns a copy of the MLIR module with the mark, as the original may be compiled elsewhere too."""
        from jaxlib.mlir import ir

        with request.given["computation"].context:
            copy = ir.Module.parse(request.bytecode())
            attributes = copy.operation.attributes
            marks = {_MARK: ir.StringAttr.get(self.token)}
            if _FRONTEND_ATTRIBUTES in attributes:
                marks |= {entry.name: entry.attr for entry in ir.DictAttr(attributes[_FRONTEND_ATTRIBUTES])}
            attributes[_FRONTEND_ATTRIBUTES] = ir.DictAttr.get(marks)
        return copy


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [""])[0]
