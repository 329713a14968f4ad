"""Files are written whole or not at all; what is no regular file is written to and never read, replaced or removed."""

import gzip
import os
import pty
import resource
import socket
import stat
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from memplan.compiler import limits
from memplan.compiler.errors import FileError, MemplanError, ParseError, ReaderGoneError
from memplan.compiler.files import (
    check_writable,
    make_folder,
    read_bytes,
    read_text,
    unpacked,
    write_atomically,
    write_files,
)
from memplan.compiler.printable import printable

_MINORS = {"null": 3, "zero": 5, "full": 7}


@pytest.fixture
def device(tmp_path: Path) -> Callable[[str], Path]:
    """Makes a device of our own: the machine's are never written to."""

    def make(name: str) -> Path:
        path = tmp_path / name
        try:
            os.mknod(path, stat.S_IFCHR | 0o666, os.makedev(1, _MINORS[name]))
            os.close(os.open(path, os.O_WRONLY))
        except OSError as error:
            pytest.skip(f"devices cannot be made here: {error}")
        return path

    return make


@pytest.fixture
def pipe(tmp_path: Path) -> Path:
    path = tmp_path / "pipe"
    os.mkfifo(path)
    return path


@pytest.fixture
def open_socket(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.chdir(tmp_path)  # The path of a socket may have a hundred bytes only.
    with socket.socket(socket.AF_UNIX) as opened:
        opened.bind("socket")
        yield tmp_path / "socket"


def error_of(function: Callable[..., object], *arguments: object) -> str:
    with pytest.raises(MemplanError) as caught:
        function(*arguments)
    return str(caught.value)


# ---- writing


def test_a_new_file_and_an_old_one(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write_atomically(path, "ä")
    assert path.read_bytes() == "ä".encode()
    umask = os.umask(0)
    os.umask(umask)
    assert stat.S_IMODE(path.stat().st_mode) == 0o666 & ~umask
    path.chmod(0o640)
    write_atomically(path, b"new")
    assert path.read_bytes() == b"new"
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    assert os.listdir(tmp_path) == ["file"]


def test_a_link_stays_and_what_it_leads_to_is_written(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "target").write_text("old")
    (tmp_path / "near").symlink_to("folder/target")
    (tmp_path / "far").symlink_to("near")
    (tmp_path / "dangling").symlink_to("folder/new")
    for name in ("near", "far", "dangling"):
        check_writable(tmp_path / name)
        write_atomically(tmp_path / name, name)
        assert (tmp_path / name).is_symlink()
        assert (tmp_path / name).read_text() == name
    assert sorted(os.listdir(folder)) == ["new", "target"]
    assert (folder / "target").read_text() == "far"


def test_links_that_lead_nowhere(tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "lost").symlink_to("no/folder")
    assert "Too many levels of symbolic links" in error_of(write_atomically, tmp_path / "loop", "x")
    assert f"there is no folder {tmp_path / 'no'}" in error_of(write_atomically, tmp_path / "lost", "x")
    assert sorted(os.listdir(tmp_path)) == ["loop", "lost"]


def test_devices_are_written_to(device: Callable[[str], Path], tmp_path: Path) -> None:
    null, full = device("null"), device("full")
    (tmp_path / "link").symlink_to(full)
    write_atomically(null, "x" * 10**7)
    for path in (full, tmp_path / "link"):
        assert error_of(write_atomically, path, "x") == f"cannot write {path}: No space left on device"
    for path in (null, full):
        assert stat.S_ISCHR(path.lstat().st_mode)
    assert sorted(os.listdir(tmp_path)) == ["full", "link", "null"]


def test_a_terminal_is_written_to() -> None:
    leader, follower = pty.openpty()
    try:
        name = os.ttyname(follower)
        write_atomically(name, "hello")
        assert os.read(leader, 100) == b"hello"
        assert stat.S_ISCHR(os.lstat(name).st_mode)
    finally:
        os.close(leader)
        os.close(follower)


def test_a_pipe_is_written_to(pipe: Path) -> None:
    content = bytes(range(256)) * 4000  # more than a pipe holds at once
    read: list[bytes] = []
    reader = threading.Thread(target=lambda: read.append(pipe.read_bytes()))
    reader.start()
    write_atomically(pipe, content)
    reader.join()
    assert read == [content]
    assert stat.S_ISFIFO(pipe.lstat().st_mode)


def test_a_pipe_whose_reader_goes_away(pipe: Path) -> None:
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    threading.Timer(0.1, os.close, [reader]).start()
    assert error_of(write_atomically, pipe, b"x" * 10**7) == f"cannot write {pipe}: Broken pipe"


def test_open_descriptors_are_written_to(tmp_path: Path) -> None:
    reading, writing = os.pipe()
    (tmp_path / "link").symlink_to(f"/dev/fd/{writing}")
    write_atomically(f"/dev/fd/{writing}", "a")
    write_atomically(f"/proc/self/fd/{writing}", "b")
    write_atomically(tmp_path / "link", "c")
    os.close(writing)
    assert os.read(reading, 10) == b"abc"
    os.close(reading)
    assert (
        error_of(write_atomically, f"/dev/fd/{writing}", "d") == f"cannot write /dev/fd/{writing}: Bad file descriptor"
    )


@pytest.mark.parametrize("name", ["-", "/dev/stdout", "/dev/fd/1", "/proc/self/fd/1"])
def test_standard_output(capfd: pytest.CaptureFixture[str], name: str) -> None:
    print("before")
    check_writable(name)
    write_atomically(name, "content\n")
    print("after")
    assert capfd.readouterr().out == "before\ncontent\nafter\n"


_WRITE_AROUND = """
from memplan.compiler.files import write_atomically
print("before")
write_atomically("/dev/stdout", "content\\n")
print("after")
"""


def test_a_file_that_is_standard_output_gets_everything_in_order(tmp_path: Path) -> None:
    with (tmp_path / "out").open("wb") as out:
        subprocess.run([sys.executable, "-c", _WRITE_AROUND], stdout=out, check=True)
    assert (tmp_path / "out").read_text() == "before\ncontent\nafter\n"
    assert os.listdir(tmp_path) == ["out"]


def test_standard_output_without_a_reader() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    before = os.dup(1)
    os.dup2(writing, 1)
    try:
        with pytest.raises(ReaderGoneError):
            write_atomically("-", "x")
    finally:
        os.dup2(before, 1)
        os.close(before)
        os.close(writing)


def test_folders_sockets_and_names_that_cannot_be(tmp_path: Path, open_socket: Path) -> None:
    before = sorted(os.listdir(tmp_path))
    for path, reason in (
        (tmp_path, "it is a folder"),
        (open_socket, "it is a socket"),
        (tmp_path / "none" / "x", f"there is no folder {tmp_path / 'none'}"),
        (tmp_path / ("x" * 256), "File name too long"),
        (tmp_path / ("ä" * 128), "File name too long"),
        ("", "No such file or directory"),
        ("a\0b", "a name cannot hold a null character"),
    ):
        for function in (check_writable, lambda path: write_atomically(path, "x")):
            assert error_of(function, path) == f"cannot write {printable(str(path))}: {reason}"
    assert sorted(os.listdir(tmp_path)) == before


def test_names_of_any_bytes_and_of_the_greatest_length(tmp_path: Path) -> None:
    for name in (b"\xff\xfe", b"x" * 255, b"a b\n\x1b[2J", "\u202e".encode(), b".hidden"):
        path = os.path.join(tmp_path, os.fsdecode(name))
        write_atomically(path, "x")
        assert read_bytes(path, 1) == b"x"
        assert os.listdir(os.fsencode(tmp_path)) == [name]
        os.unlink(path)


def test_a_folder_in_which_no_file_can_be_made(tmp_path: Path) -> None:
    """Root may write into every folder but those of the kernel."""
    assert error_of(write_atomically, "/proc/self/new", "x").startswith("cannot write /proc/self/new: ")
    if os.geteuid() != 0:
        tmp_path.chmod(0o500)
        assert "read-only" in error_of(check_writable, tmp_path / "x")
        tmp_path.chmod(0o700)


def test_text_that_is_no_unicode_is_written_all_the_same(tmp_path: Path) -> None:
    write_atomically(tmp_path / "x", "a\udcffb")
    assert (tmp_path / "x").read_bytes() == b"a\\udcffb"


def _limited() -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000))


_WRITE_TOO_MUCH = """
import sys
from memplan.compiler.errors import MemplanError
from memplan.compiler.files import write_files
try:
    write_files({"small": "new", "link": b"x" * 20_000})
except MemplanError as error:
    sys.exit(str(error))
"""


def test_no_room_on_the_disk_changes_nothing(tmp_path: Path) -> None:
    (tmp_path / "small").write_text("old")
    (tmp_path / "large").write_text("old")
    (tmp_path / "link").symlink_to("large")
    command = [sys.executable, "-c", _WRITE_TOO_MUCH]
    done = subprocess.run(command, cwd=tmp_path, preexec_fn=_limited, capture_output=True, text=True)
    assert (done.returncode, done.stderr.strip()) == (1, "cannot write link: File too large")
    assert [(tmp_path / name).read_text() for name in ("small", "large")] == ["old", "old"]
    assert sorted(os.listdir(tmp_path)) == ["large", "link", "small"]


def test_several_files_or_none(tmp_path: Path) -> None:
    write_files({tmp_path / "a": "1", tmp_path / "b": b"2"})
    error_of(write_files, {tmp_path / "a": "3", tmp_path / "no" / "b": "4"})
    assert (tmp_path / "a").read_text() == "1"
    assert sorted(os.listdir(tmp_path)) == ["a", "b"]


def test_an_interruption_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("memplan.compiler.files._fill", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write_atomically(tmp_path / "x", "x")
    assert os.listdir(tmp_path) == []


def test_folders_are_made(tmp_path: Path) -> None:
    make_folder(tmp_path / "a" / "b")
    make_folder(tmp_path / "a" / "b")
    (tmp_path / "file").write_text("x")
    assert error_of(make_folder, tmp_path / "file") == f"cannot write files to {tmp_path / 'file'}: File exists"
    message = error_of(make_folder, tmp_path / "file" / "x", "a report")
    assert message == f"cannot write a report to {tmp_path / 'file' / 'x'}: Not a directory"


# ---- reading


def test_only_regular_files_are_read(
    tmp_path: Path, pipe: Path, open_socket: Path, device: Callable[[str], Path]
) -> None:
    zero = device("zero")
    (tmp_path / "link").symlink_to(zero)
    for path, kind in (
        (tmp_path, "a directory"),
        (pipe, "a pipe"),
        (open_socket, "a socket"),
        (zero, "a device"),
        (tmp_path / "link", "a device"),
    ):
        assert error_of(read_bytes, path, 10) == f"cannot read {path}: it is {kind}, not a regular file"


def test_links_to_files_are_read(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"content")
    (tmp_path / "link").symlink_to("file")
    assert read_bytes(tmp_path / "link", 7) == b"content"
    assert error_of(read_bytes, "a\0b", 7) == "cannot read a\\x00b: a name cannot hold a null character"
    assert error_of(read_bytes, "", 7) == "cannot read : No such file or directory"


def test_a_file_above_the_limit_is_refused_before_it_is_read(tmp_path: Path) -> None:
    with (tmp_path / "huge").open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(FileError) as caught:
        read_bytes(tmp_path / "huge", 1 << 20)
    assert caught.value.reason == "it holds more than the 1 MiB that memplan reads"


def test_text_has_to_be_utf_8(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"ab\xff")
    assert error_of(read_text, tmp_path / "file", 10).endswith("byte 2 is not UTF-8 text")


def test_standard_input_only_where_it_is_wanted() -> None:
    code = "import sys; from memplan.compiler.files import read_bytes; print(read_bytes('-', 5, True))"
    done = subprocess.run([sys.executable, "-c", code], input=b"hello", capture_output=True)
    assert done.stdout == b"b'hello'\n"
    done = subprocess.run([sys.executable, "-c", code], input=b"hello!", capture_output=True)
    assert b"cannot read standard input: it holds more than the 5 bytes that memplan reads" in done.stderr
    assert error_of(read_bytes, "-", 5) == "cannot read -: No such file or directory"


def test_gzip_is_unpacked_up_to_the_limit() -> None:
    assert unpacked(b"plain", "f", 5) == b"plain"
    assert unpacked(gzip.compress(b"ab") + gzip.compress(b"cd") + b"\0\0", "f", 4) == b"abcd"
    bomb = gzip.compress(b"\0" * 10**7)
    with pytest.raises(ParseError, match="f: unpacks to more than the 1 KiB that memplan reads"):
        unpacked(bomb, "f", 1024)
    with pytest.raises(ParseError, match="is the file truncated"):
        unpacked(gzip.compress(b"abc")[:-3], "f", 1024)
    with pytest.raises(ParseError, match="something follows"):
        unpacked(gzip.compress(b"abc") + b"x", "f", 1024)


def test_the_limits_are_in_the_documentation() -> None:
    page = (Path(__file__).parents[2] / "docs" / "formats.md").read_text()
    for what, limit in limits.LIMITS.items():
        assert f"| {what} | {limits.print_limit(limit)} |" in page
