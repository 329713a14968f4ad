"""Compiles a module ahead of time, with a worker process, time limits, restarts, and a cache on disk: for TPUs."""

from __future__ import annotations

import gzip
import hashlib
import json
import math
import os
import queue
import tempfile
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, ClassVar, Self, cast

from memplan.backends import order_hook
from memplan.backends.tpu.devices import TOPOLOGY_OF_TARGET
from memplan.backends.tpu.worker import read_frame, write_frame
from memplan.compiler import child_process, limits
from memplan.compiler.cache import Cache
from memplan.compiler.errors import MemplanError
from memplan.compiler.files import unpacked

_MESSAGES = {
    "refused": "{} refused: {}",
    "order": "{} did not set the order: {}",
    "unprintable": "{} made a module that cannot be printed: {}",
}
_LOCKED = "libtpu multi-process lockfile"
_LOCK_RETRIES = 5


def no_compiler(target: str) -> str:
    """Returns the message for a target for which no compiler carries out plans."""
    return f"no compiler carries out plans for {target}, only for {', '.join(sorted(TOPOLOGY_OF_TARGET))}"


class CompileError(MemplanError):
    """A compiler refused a module, died, or did not answer in time.

    Attributes:
      reason: "missing" (it is not installed), "unsupported" (this jax sets no order on a TPU), "order" (the order
        is not one of this module, or not legal), "unprintable" (it was compiled, but this jax cannot print it),
        "refused", "crashed" or "timeout".
    """

    def __init__(self, message: str, reason: str):
        super().__init__(message)
        self.reason = reason


@dataclass(frozen=True)
class CompiledModule:
    """A module that the compiler made.

    Attributes:
      text: the scheduled, optimized module with memory spaces and estimates.
      seconds: that the compile took, when it was done.
      cached: whether it was found on disk.
      memory: bytes by the names of XLA's CompiledMemoryStats, such as `temp_size_in_bytes`; None where it is not known.
    """

    text: str
    seconds: float
    cached: bool
    memory: dict[str, int] | None = None


class ModuleCompiler(ABC):
    """Compiles StableHLO modules ahead of time in a process of its own, started when first needed.

    Args:
      cache_folder: where compiled modules are kept; None for `compiler.cache.cache_folder()`.
      use_cache: whether to look there and to keep what was compiled.
      timeout: seconds that one compile may take before the worker is ended.
    """

    name: ClassVar[str]  # in messages

    def __init__(self, cache_folder: Path | None = None, use_cache: bool = True, timeout: float = 600.0):
        self._cache = Cache(cache_folder)
        self._use_cache, self._timeout = use_cache, timeout
        self._worker: _Worker | None = None

    @abstractmethod
    def demand(self) -> None:
        """Raises CompileError if the compiler is not installed."""

    @abstractmethod
    def versions(self) -> list[str]:
        """Returns the versions of what a compiled module follows from."""

    @abstractmethod
    def environment(self) -> dict[str, str]:
        """Returns the variables that the compiler needs in the environment of its process."""

    def _compiled(self, module: bytes, request: dict[str, Any]) -> CompiledModule:
        """Answers a request from the cache, or else by the worker."""
        if not self._use_cache:
            return self._compiled_now(module, request)
        name = f"{self._key(module, request)}.hlo.txt.gz"
        if (found := self._cache.load(name, _decoded)) is not None:
            return found
        # If several processes want the same module at once, one compiles it and the others wait.
        with self._cache.locked(name, self._timeout):
            if (found := self._cache.load(name, _decoded)) is not None:
                return found
            compiled = self._compiled_now(module, request)
            self._cache.store(name, _encoded(compiled))
        return compiled

    def _compiled_now(self, module: bytes, request: dict[str, Any]) -> CompiledModule:
        """Answers a request by the worker."""
        began = time.monotonic()
        for attempt in range(_LOCK_RETRIES):
            try:
                header, text = self._request(module, request)
                break
            except CompileError as error:
                # Another process on this machine compiles; its lock is held for as long as it lives.
                if _LOCKED not in str(error) or attempt == _LOCK_RETRIES - 1:
                    raise
                self.close()
                time.sleep(2.0**attempt)
        return CompiledModule(text, time.monotonic() - began, cached=False, memory=header["memory"])

    def _key(self, module: bytes, request: Mapping[str, Any]) -> str:
        parts = [request["topology"], sorted(request["options"].items()), self.versions()]
        # The key without these is that of older versions, so their entries are still found.
        parts += [[name, request[name]] for name in ("order", "stage", "devices") if name in request]
        rest = json.dumps(parts, sort_keys=True).encode()
        return hashlib.sha256(hashlib.sha256(module).digest() + rest).hexdigest()

    def _request(self, module: bytes, request: dict[str, Any]) -> tuple[dict[str, Any], str]:
        if self._worker is None:
            self.demand()
            self._worker = _Worker(self.name, self.environment(), self._timeout)
        try:
            header, payload = self._worker.ask(request, module, self._timeout)
        except CompileError:
            self.close()
            raise
        if not header["ok"]:
            raise CompileError(_MESSAGES[header["reason"]].format(self.name, header["error"]), header["reason"])
        return header, payload.decode()

    def close(self) -> None:
        """Ends the worker; a later `compile` starts another."""
        if self._worker is not None:
            self._worker.close()
            self._worker = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class TpuCompiler(ModuleCompiler):
    """Compiles StableHLO modules for TPU topologies."""

    name = "the TPU compiler"

    def compile(
        self,
        module: bytes,
        topology: str,
        options: Mapping[str, str] | None = None,
        order: Mapping[str, Sequence[str]] | None = None,
        devices: Sequence[int] = (),
    ) -> CompiledModule:
        """Compiles a module.

        Args:
          module: StableHLO as MLIR bytecode.
          topology: such as `v5e:2x2`.
          options: compiler options by name, as in `jax.jit(..., compiler_options=...)`.
          order: by computation of the module that `before_assignment` returns, the names of its instructions in the
            order in which they are to run; None for the compiler's own order. Needs jax 0.12.
          devices: ids of those of the topology that run the partitions of the program, see `TpuSlice`.

        Raises:
          CompileError: libtpu is missing, the compiler refused the module, an option or the order, died, or took too
            long; or the module cannot be printed.
        """
        request = _request_for(topology, options, devices)
        if order:
            _demand_hook()
            request["order"] = {name: list(instructions) for name, instructions in order.items()}
        return self._compiled(module, request)

    def before_assignment(
        self, module: bytes, topology: str, options: Mapping[str, str] | None = None, devices: Sequence[int] = ()
    ) -> CompiledModule:
        """Returns a module as it is scheduled, before its values are assigned to memory spaces.

        Instructions that compute keep their names in the compiled module, except a few fusions that the compiler
        renames later; views get new names, and copies are added. Arguments and errors are those of `compile`; needs jax
        0.12.
        """
        _demand_hook()
        return self._compiled(module, _request_for(topology, options, devices) | {"stage": "before_assignment"})

    def demand(self) -> None:
        _demand_libtpu()

    def versions(self) -> list[str]:
        return compiler_versions()

    def environment(self) -> dict[str, str]:
        """The environment that libtpu needs where there is no TPU."""
        variables = {"TPU_SKIP_MDS_QUERY": "1", "TPU_STDERR_LOG_LEVEL": "3", "JAX_PLATFORMS": "cpu"}
        # Without a chip, several processes may compile at the same time; with a chip, its lock must be respected.
        if not any(Path("/dev").glob("accel*")) and not any(Path("/dev/vfio").glob("[0-9]*")):
            variables["ALLOW_MULTIPLE_LIBTPU_LOAD"] = "1"
        return variables


def _request_for(topology: str, options: Mapping[str, str] | None, devices: Sequence[int]) -> dict[str, Any]:
    request: dict[str, Any] = {"topology": topology, "options": dict(options or {})}
    return request | {"devices": list(devices)} if devices else request


class _Worker:
    """One worker process and the thread that reads its answers."""

    def __init__(self, name: str, environment: dict[str, str], timeout: float):
        self._name, self._log = name, _log_file()
        reading, writing = os.pipe()
        self._process = child_process.start(
            "memplan.backends.tpu.worker",
            str(writing),
            stdout=self._log,
            stderr=self._log,
            pass_fds=(writing,),
            environment=environment,
        )
        os.close(writing)
        self._answers: queue.SimpleQueue[tuple[dict[str, Any], bytes] | None] = queue.SimpleQueue()
        threading.Thread(target=self._read, args=(os.fdopen(reading, "rb"),), daemon=True).start()
        self._wait(timeout)

    def ask(self, header: dict[str, Any], payload: bytes, timeout: float) -> tuple[dict[str, Any], bytes]:
        assert self._process.stdin is not None
        with suppress(BrokenPipeError):  # it died before; `_wait` says why
            write_frame(self._process.stdin, header, payload)  # type: ignore[arg-type]
        return self._wait(timeout)

    def _read(self, stream: BinaryIO) -> None:
        with stream:
            while (frame := read_frame(stream)) is not None:
                self._answers.put(frame)
        self._answers.put(None)

    def _wait(self, timeout: float) -> tuple[dict[str, Any], bytes]:
        try:
            frame = self._answers.get(timeout=timeout)
        except queue.Empty:
            raise CompileError(f"{self._name} did not answer within {timeout:g} s", "timeout") from None
        if frame is None:
            status = self._process.wait(timeout=30)
            raise CompileError(f"{self._name} died with status {status}: {self._last_words()}", "crashed")
        return frame

    def _last_words(self) -> str:
        self._log.seek(0)
        lines = [line.strip() for line in self._log.read().decode(errors="replace").splitlines() if line.strip()]
        return " | ".join(lines[-3:]) or "it left no message"

    def close(self) -> None:
        self._process.kill()
        self._process.wait()
        if self._process.stdin is not None:
            with suppress(BrokenPipeError):
                self._process.stdin.close()
        self._log.close()


def _log_file() -> BinaryIO:
    """Returns a file for what the worker says, which nobody reads where no file can be made."""
    try:
        return cast(BinaryIO, tempfile.TemporaryFile())
    except OSError:
        return open(os.devnull, "r+b")


def compiler_versions() -> list[str]:
    """Returns the versions of what a compiled module follows from: jaxlib, and libtpu ("" if it is missing)."""
    return [version("jaxlib"), _libtpu_version()]


def _demand_libtpu() -> None:
    if find_spec("libtpu") is None:
        raise CompileError("the TPU compiler is not installed: pip install 'memplan[tpu]'", "missing")


def _demand_hook() -> None:
    _demand_libtpu()
    if not order_hook.is_supported("tpu"):
        raise CompileError(
            f"seeing and setting the order on a TPU needs jax 0.12 or newer: this is {version('jax')}", "unsupported"
        )


def _libtpu_version() -> str:
    try:
        return version("libtpu")
    except PackageNotFoundError:
        return ""


def _encoded(module: CompiledModule) -> bytes:
    """Returns an entry of the cache: a line of JSON, then the text, gzipped."""
    text = module.text.encode()
    header = {"seconds": module.seconds, "memory": module.memory, "sha256": hashlib.sha256(text).hexdigest()}
    return gzip.compress(json.dumps(header).encode() + b"\n" + text, 6, mtime=0)


def _decoded(entry: bytes) -> CompiledModule:
    """Returns what an entry of the cache holds; entries of older versions have no checksum beside that of gzip.

    Raises:
      ValueError, ParseError: the entry is damaged.
    """
    header, _, text = unpacked(entry, "the entry", limits.CACHED).partition(b"\n")
    fields = json.loads(header)
    if not isinstance(fields, dict) or not text.startswith(b"HloModule"):
        raise ValueError("it holds no module")
    seconds, memory = fields.get("seconds"), fields.get("memory")
    if not isinstance(seconds, int | float) or isinstance(seconds, bool) or not 0.0 <= seconds < math.inf:
        raise ValueError("the time is no number")
    if memory is not None and not (isinstance(memory, dict) and all(type(size) is int for size in memory.values())):
        raise ValueError("the sizes are no numbers")
    if fields.get("sha256", digest := hashlib.sha256(text).hexdigest()) != digest:
        raise ValueError("the checksum is not that of the module")
    return CompiledModule(text.decode(), float(seconds), cached=True, memory=memory)
