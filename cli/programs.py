"""JAX programs that a command names: a workload, or `module:function` of the user's."""

from __future__ import annotations

import importlib
import os
import re
import sys
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import partial
from importlib.machinery import PathFinder
from importlib.util import find_spec, module_from_spec
from inspect import signature
from typing import TYPE_CHECKING, Any

from memplan.compiler.errors import MemplanError, one_line

if TYPE_CHECKING:
    from memplan.backends.jit.planning import TpuProgram
    from memplan.compiler.hardware.target import Target

# The axes of a mesh that is given by sizes alone.
_AXES = ("x", "y", "z")
_SIZE = re.compile(r"[1-9]\d{0,4}")


@dataclass(frozen=True)
class Program:
    """A function and the shapes that it is compiled for.

    Attributes:
      name: as the user gave it.
      fun: the function, not jitted.
      args: its arguments, pytrees of arrays or of `jax.ShapeDtypeStruct`.
      donate_argnums: as for `jax.jit`.
      mesh: of the devices that run it, abstract; None for one device, or where its shardings say it.
    """

    name: str
    fun: Callable[..., Any]
    args: tuple[Any, ...]
    donate_argnums: tuple[int, ...] = ()
    mesh: Any = None


def prepare_jax() -> None:
    """Makes JAX ready to lower programs here, which run nowhere; to be called before anything uses it.

    Raises:
      MemplanError: JAX is not installed.
    """
    if find_spec("jax") is None:
        raise MemplanError("JAX is not installed: pip install jax")
    # Otherwise JAX looks for accelerators, and libtpu in this process takes the TPU from the one that compiles.
    if "JAX_PLATFORMS" not in os.environ:
        os.environ["JAX_PLATFORMS"] = "cpu"
        if "jax" in sys.modules:  # It read its environment when it was imported.
            sys.modules["jax"].config.update("jax_platforms", "cpu")


def parse_mesh(text: str) -> Any:
    """Returns the `jax.sharding.AbstractMesh` of a text: `data=2,model=4`, or `2x4` for axes called x, y, z.

    Raises:
      MemplanError: it is neither, an axis is named twice, or JAX is not installed.
    """
    prepare_jax()
    from jax.sharding import AbstractMesh, AxisType

    parts = text.split("x")
    if "=" not in text and len(parts) <= len(_AXES):
        named = list(zip(_AXES, parts, strict=False))
    else:
        named = [(name.strip(), size.strip()) for name, _, size in (part.partition("=") for part in text.split(","))]
    if not all(name.isidentifier() and _SIZE.fullmatch(size) for name, size in named):
        raise MemplanError(f"--mesh {text}: must be sizes, as 2x4, or names and sizes, as data=2,model=4")
    names = [name for name, _ in named]
    if len(set(names)) < len(names):
        raise MemplanError(f"--mesh {text}: it names an axis twice")
    return AbstractMesh(tuple(int(size) for _, size in named), tuple(names), (AxisType.Auto,) * len(named))


def find_program(name: str, mesh: Any = None) -> Program:
    """Returns the workload of a name, or what `module:function` builds.

    The function takes no arguments, or the mesh if one is given and it has a parameter `mesh`. It returns
    `(fun, args)`, as that of a workload does; a `Workload` may stand in its place. The module is looked for in the
    current folder first. What it imports, also later, is looked for there after what is installed.

    Raises:
      MemplanError: there is no such thing, or it builds something else.
    """
    build, donate_argnums = _builder(name)
    if mesh is None:
        return _built(name, build, donate_argnums)
    takes_mesh = callable(build) and "mesh" in signature(build).parameters
    return replace(_built(name, partial(build, mesh=mesh) if takes_mesh else build, donate_argnums), mesh=mesh)


def find_program_of_batches(name: str) -> tuple[Callable[..., tuple[Any, Any]], tuple[int, ...]]:
    """Returns a function that takes a `batch` and returns `(fun, args)` for it, and the arguments that are donated.

    Raises:
      MemplanError: there is no such thing (see `find_program`), or it takes no argument by the name `batch`.
    """
    build, donate_argnums = _builder(name)
    from memplan.backends.fit.batch_model import check_takes_batch

    if callable(build):
        check_takes_batch(build, name)

    def program(batch: int) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        built = _built(name, build, donate_argnums, batch=batch)
        return built.fun, built.args

    return program, donate_argnums


def lowered_for_tpu(program: Program) -> Any:
    """Returns the `jax.stages.Lowered` of the program for TPUs.

    Raises:
      MemplanError: JAX cannot trace or lower it (the message has the first line of JAX's own).
    """
    import jax

    from memplan.backends.jit import lowering

    within = nullcontext() if program.mesh is None else jax.sharding.use_abstract_mesh(program.mesh)
    try:
        with within:
            traced = jax.jit(program.fun, donate_argnums=program.donate_argnums).trace(*program.args)
            return lowering.lower_for_tpu(traced)
    except Exception as error:
        raise MemplanError(f"{program.name} does not trace: {one_line(error)}") from error


def lower_for_tpu(program: Program) -> bytes:
    """Returns the program as StableHLO bytecode, lowered for TPUs.

    Raises:
      MemplanError: as `lowered_for_tpu`, or it is a program of several devices.
    """
    from memplan.backends.jit.planning import module_of

    return module_of(lowered_for_tpu(program), program.name)


def tpu_program(program: Program, target: Target) -> TpuProgram:
    """Returns the program for one device of a TPU target, or for the slice that its shardings ask for.

    Raises:
      MemplanError: as `lowered_for_tpu`; the target has no compiler; or nothing of the program is divided over the mesh
        that it is to run on.
    """
    from memplan.backends.jit.planning import TpuProgram

    made = TpuProgram.of(lowered_for_tpu(program), target)
    if program.mesh is not None and program.mesh.size > 1 and made.slice is None:
        raise MemplanError(f"{program.name} has no shardings: nothing of it is divided over the mesh")
    return made


def _builder(name: str) -> tuple[Any, tuple[int, ...]]:
    """Returns what a name stands for and is to be called, and the arguments that the program donates."""
    prepare_jax()
    from memplan import workloads

    module_name, colon, attribute = name.partition(":")
    if colon:
        built = _imported(name, module_name, attribute)
        if not isinstance(built, workloads.Workload):
            return built, ()
    else:
        built = workloads.get(name)
    return built.build, built.donate_argnums


def _imported(name: str, module_name: str, attribute: str) -> Any:
    if not module_name or not attribute:
        raise MemplanError(f"{name} is neither a workload nor module:function")
    try:
        module = _module(module_name)
    except MemplanError:
        raise
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module_name}.".startswith(f"{error.name}."):
            raise MemplanError(f"{module_name} cannot be imported: {one_line(error)}") from error
        raise MemplanError(f"there is no module {module_name}, neither installed nor in the current folder") from None
    except (Exception, SystemExit) as error:
        raise MemplanError(f"{module_name} cannot be imported: {one_line(error)}") from error
    if not hasattr(module, attribute):
        raise MemplanError(f"{module_name} has no {attribute}")
    return getattr(module, attribute)


def _module(name: str) -> Any:
    """Imports a module, of the current folder if it is there.

    What that module imports is looked for among what is installed first, and in the current folder last. The folder
    stays on the path: functions import more when they are called.
    """
    import jax  # noqa: F401  (so that no file of the folder takes the name of what every program needs)

    try:
        here = os.getcwd()
    except OSError:  # The folder was removed.
        return importlib.import_module(name)
    if here not in sys.path:
        sys.path.append(here)
    top = name.partition(".")[0]
    spec = PathFinder.find_spec(top, [here])
    if spec is not None and spec.loader is not None and spec.origin is not None:
        loaded = sys.modules.get(top)
        if loaded is None:
            sys.modules[top] = module_from_spec(spec)
            try:
                spec.loader.exec_module(sys.modules[top])
            except BaseException:
                del sys.modules[top]
                raise
        elif getattr(loaded, "__file__", None) != spec.origin:
            raise MemplanError(f"{top} is the name of a module that memplan needs itself: rename {spec.origin}")
    return importlib.import_module(name)


def _built(name: str, build: Any, donate_argnums: tuple[int, ...], **options: int) -> Program:
    if not callable(build):
        raise MemplanError(f"{name} is a {type(build).__name__}: it must be a function that returns (fun, args)")
    try:
        built = build(**options)
    except (Exception, SystemExit) as error:
        given = "".join(f" for {option} {value:,}" for option, value in options.items())
        raise MemplanError(f"{name} cannot be built{given}: {one_line(error)}") from error
    is_pair = isinstance(built, tuple) and len(built) == 2
    if not is_pair or not callable(built[0]) or not isinstance(built[1], tuple):
        raise MemplanError(f"{name} returns no (fun, args), a function and a tuple of its arguments")
    return Program(name, built[0], built[1], donate_argnums)
