"""A cache is never trusted and never fatal: damage, no folder, no room, several processes."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from memplan.compiler import cache as caches
from memplan.compiler.cache import Cache, CacheWarning, cache_folder, opened, sealed, sources_digest


@pytest.fixture(autouse=True)
def fresh(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Nothing was said, and there is no temporary folder; what a test makes is removed."""
    monkeypatch.setattr(caches, "_said", set())
    made: list[Callable[[], None]] = []
    monkeypatch.setattr(caches.atexit, "register", made.append)
    monkeypatch.delenv(caches._SPARE, raising=False)
    yield
    for remove in made:
        remove()


def load(cache: Cache, name: str) -> bytes | None:
    return cache.load(name, opened)


def test_what_is_stored_is_found() -> None:
    assert opened(sealed(b"content")) == b"content"


def test_entries_are_files_in_the_folder(tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        cache = Cache(tmp_path / "a" / "b")
        assert load(cache, "group/name") is None
        cache.store("group/name", sealed(b"content"))
        assert load(cache, "group/name") == b"content"
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == ["name"]


def test_a_digest_follows_modules_and_packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "digested").mkdir()
    inner, module = tmp_path / "digested" / "__init__.py", tmp_path / "digested_module.py"
    inner.write_text("")
    module.write_text("")
    names = ("digested", "digested_module")
    found = {sources_digest(names), sources_digest(names[:1]), sources_digest([*names, "no_such_module_at_all"])}
    assert len(found) == 2
    for path in (inner, module):
        path.write_text("CHANGED = 1")
        assert sources_digest(names) not in found
        found.add(sources_digest(names))


CONTENT = bytes(range(256))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=200)
@given(data=st.data())
def test_no_damage_is_taken_for_content(tmp_path: Path, data: st.DataObject) -> None:
    whole = bytearray(sealed(CONTENT))
    if data.draw(st.booleans()):
        place, bit = data.draw(st.tuples(st.integers(0, len(whole) - 1), st.integers(0, 7)))
        whole[place] ^= 1 << bit
    else:
        del whole[data.draw(st.integers(0, len(whole) - 1)) :]
    path = tmp_path / "entry"
    path.write_bytes(whole)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", CacheWarning)
        assert load(Cache(tmp_path), "entry") is None
    assert not path.exists()


def make_fifo(path: Path) -> None:
    os.mkfifo(path)


def make_folder(path: Path) -> None:
    (path / "inner").mkdir(parents=True)


def make_link_to_device(path: Path) -> None:
    path.symlink_to("/dev/zero")


@pytest.mark.parametrize("make", [make_fifo, make_folder, make_link_to_device])
def test_what_is_no_file_is_replaced(tmp_path: Path, make: Callable[[Path], None]) -> None:
    cache = Cache(tmp_path)
    make(tmp_path / "entry")
    with pytest.warns(CacheWarning, match="damaged entry"):
        assert load(cache, "entry") is None
    make(tmp_path / "entry")
    cache.store("entry", sealed(b"new"))
    assert (tmp_path / "entry").is_file()
    assert not (tmp_path / "entry").is_symlink()
    assert load(cache, "entry") == b"new"


def test_damage_is_said_once(tmp_path: Path) -> None:
    cache = Cache(tmp_path)
    for name in "abc":
        (tmp_path / name).write_bytes(b"nonsense")
    with pytest.warns(CacheWarning, match="damaged entry") as said:
        assert [load(cache, name) for name in "abc"] == [None] * 3
    assert len(said) == 1


@pytest.fixture
def file(tmp_path: Path) -> Path:
    (tmp_path / "file").write_text("")
    return tmp_path / "file"


def test_without_a_folder_entries_are_kept_until_the_process_ends(file: Path) -> None:
    cache = Cache(file / "cache")
    with pytest.warns(CacheWarning, match="there is no cache in"):
        assert not cache.is_usable()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for name in "abc":
            cache.store(name, sealed(name.encode()))
    assert [load(cache, name) for name in "abc"] == [b"a", b"b", b"c"]
    with cache.locked("a", 1.0):
        pass


def test_a_child_finds_the_temporary_folder_which_is_gone_afterwards(file: Path) -> None:
    program = (
        "import os, subprocess, sys; from pathlib import Path; from memplan.compiler.cache import Cache, opened, sealed\n"
        "cache = Cache(Path(sys.argv[1]))\n"
        "if len(sys.argv) == 2:\n"
        "    cache.store('name', sealed(b'content'))\n"
        "    subprocess.run([sys.executable, '-c', sys.argv[0], sys.argv[1], 'child'], check=True)\n"
        "    print(os.environ['MEMPLAN_SPARE_CACHE'])\n"
        "else:\n"
        "    assert cache.load('name', opened) == b'content'\n"
    )
    program = program.replace("sys.argv[0]", repr("PROGRAM")).replace("'PROGRAM'", "os.environ['PROGRAM']")
    done = subprocess.run(
        [sys.executable, "-c", program, str(file / "cache")],
        env={**os.environ, "PROGRAM": program}, capture_output=True, text=True, check=True,
    )  # fmt: skip
    spare = Path(done.stdout.strip())
    assert spare.name.startswith("memplan-")
    assert not spare.exists()
    assert done.stderr.count("CacheWarning") == 1


def test_on_a_full_disk_nothing_is_left_half_written(tmp_path: Path) -> None:
    """A limit of a file's size fails as a full disk does, in the middle of a file."""
    cache = Cache(tmp_path)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        with pytest.warns(CacheWarning, match="there is no cache in"):
            cache.store("large", sealed(bytes(100_000)))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)
    assert list(tmp_path.iterdir()) == []
    assert load(cache, "large") is None
    cache.store("large", sealed(bytes(100_000)))
    assert load(cache, "large") == bytes(100_000)


def test_one_process_makes_what_several_want(tmp_path: Path) -> None:
    made: list[int] = []

    def want(number: int) -> bytes | None:
        cache = Cache(tmp_path)
        with cache.locked("name", 60.0):
            if load(cache, "name") is None:
                made.append(number)
                cache.store("name", sealed(b"content"))
        return load(cache, "name")

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(want, range(8))) == [b"content"] * 8
    assert len(made) == 1


def test_a_lock_that_is_held_for_too_long_is_done_without(tmp_path: Path) -> None:
    held, over = threading.Event(), threading.Event()

    def hold() -> None:
        with Cache(tmp_path).locked("name", 60.0):
            held.set()
            over.wait()

    holder = threading.Thread(target=hold)
    holder.start()
    held.wait()
    with Cache(tmp_path).locked("name", 0.1):
        over.set()
    holder.join()


def test_a_lock_that_cannot_be_made_is_done_without(tmp_path: Path) -> None:
    (tmp_path / "locks").write_text("")
    with Cache(tmp_path).locked("name", 1.0):
        pass
    (tmp_path / "locks").unlink()
    (tmp_path / "locks" / "name").mkdir(parents=True)
    with Cache(tmp_path).locked("name", 1.0):
        pass


def test_the_folder_is_the_users(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MEMPLAN_CACHE", str(tmp_path))
    assert cache_folder() == tmp_path
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MEMPLAN_CACHE", "here")
    assert cache_folder() == tmp_path / "here"
    monkeypatch.delenv("MEMPLAN_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_folder() == tmp_path / "xdg" / "memplan"


def test_without_a_home_there_is_no_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A user without an entry in the list of users, and without $HOME, as in a container."""
    for name in ("HOME", "XDG_CACHE_HOME", "MEMPLAN_CACHE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(os, "getuid", lambda: 123_456_789)
    monkeypatch.chdir(tmp_path)
    assert cache_folder() is None
    cache = Cache()
    with pytest.warns(CacheWarning, match="there is no home folder"):
        cache.store("name", sealed(b"content"))
    assert load(cache, "name") == b"content"
    assert list(tmp_path.iterdir()) == []
