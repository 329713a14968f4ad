"""Compiles a module for a GPU that is not here: XLA's part of JAX's CUDA plugin, which needs no driver for that."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec

from memplan.backends.tpu.compile import CompiledModule, CompileError, ModuleCompiler

# JAX's plugins, by the version of CUDA that they are made for.
_PLUGINS = ("cuda12", "cuda13")


class GpuCompiler(ModuleCompiler):
    """Compiles StableHLO modules for the GPUs of `TARGET_CONFIGS`."""

    name = "the GPU compiler"

    def compile(self, module: bytes, target: str) -> CompiledModule:
        """Compiles a module.

        Args:
          module: StableHLO as MLIR bytecode.
          target: a name in `TARGET_CONFIGS`.

        Raises:
          CompileError: the plugin is missing, or the compiler refused the module, died, or took too long.
        """
        return self._compiled(module, {"topology": target, "options": {}})

    def demand(self) -> None:
        if _plugin() is None:
            wanted = version("jaxlib")
            # The plugin's own extras bring NVIDIA's libraries, which only a program that runs needs.
            raise CompileError(
                f"{self.name} is not installed: pip install jax-{_PLUGINS[0]}-plugin=={wanted}", "missing"
            )

    def versions(self) -> list[str]:
        return [version("jaxlib"), _plugin() or ""]

    def environment(self) -> dict[str, str]:
        return {"JAX_PLATFORMS": "cpu", "CUDA_VISIBLE_DEVICES": "-1", "TF_CPP_MIN_LOG_LEVEL": "3"}


def _plugin() -> str | None:
    """Returns the name and version of the plugin that is installed; None if there is none."""
    for name in _PLUGINS:
        if find_spec("jax_plugins") is not None and find_spec(f"jax_plugins.xla_{name}") is not None:
            try:
                return f"{name} {version(f'jax-{name}-plugin')}"
            except PackageNotFoundError:
                continue
    return None
