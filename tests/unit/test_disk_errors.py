"""What the disk refuses becomes one message, however the error arrives."""

from __future__ import annotations

import errno
import os
import pickle
from pathlib import Path
from types import SimpleNamespace

import pytest

from acar import disk_errors
from acar.disk_errors import final_name, told_as_user_error, user_error
from acar.errors import UserError
from acar.files import atomic_path, finished_folder, replace_folder, write_bytes_atomic, write_text_atomic


def error_of(number: int, *names: object) -> OSError:
    return OSError(number, os.strerror(number), *names)


@pytest.mark.parametrize(
    ("number", "told"),
    [
        (
            errno.ENOSPC,
            r"out.bin: no space left; .+ free now at .+; free space and run the same command again",
        ),
        (errno.EDQUOT, r"out.bin: no space left in this user's quota; .*finished work is kept"),
        (errno.EFBIG, r"out.bin: no space left for a file of this size \(.*\); .+ free now at "),
        (
            errno.EACCES,
            r"out.bin: permission denied; .+ is of user \d+ with mode \d{4}, this is user \d+; grant",
        ),
        (errno.EPERM, r"out.bin: permission denied; "),
        (errno.EROFS, r"out.bin: the file system is read-only; mount it writable, or set run.results"),
        (errno.ENOTDIR, r"out.bin: a part of this path is a file, expected a folder; move it away"),
        (
            errno.ENAMETOOLONG,
            r"out.bin: the name is too long; expected a name that a file or folder can have",
        ),
        (errno.ELOOP, r"out.bin: symbolic links lead back to themselves; .+; name another"),
        (errno.EIO, r"out.bin: the device reports an error \(Input/output error\)"),
    ],
)
def test_each_refusal_has_its_message(tmp_path, number, told):
    with pytest.raises(UserError, match=told) as raised, told_as_user_error(tmp_path / "out.bin"):
        raise error_of(number)
    assert isinstance(raised.value.__cause__, OSError)
    assert str(pickle.loads(pickle.dumps(raised.value))) == str(raised.value), (
        "it comes out of a worker process"
    )


def test_the_name_in_the_error_wins_and_of_two_the_one_written(tmp_path):
    inner, source = tmp_path / "inner", tmp_path / "source"
    assert str(user_error(error_of(errno.ENOSPC, str(inner)), tmp_path)).startswith(f"{inner}: ")
    copying = error_of(errno.ENOSPC, str(source), None, str(inner))
    assert str(user_error(copying)).startswith(f"{inner}: ")
    assert str(user_error(error_of(errno.ENOSPC, 3))).startswith("a file: no space left")


@pytest.mark.parametrize(
    ("temporary", "final"),
    [
        ("r/.stage1.tmp/.facts.json.12.tmp.json", "r/stage1/facts.json"),
        ("r/.checkpoint.pt.7.tmp.pt", "r/checkpoint.pt"),
        ("r/.shard-000.tmp/boxes.csv", "r/shard-000/boxes.csv"),
        ("r/.snakemake/tmp.txt", "r/.snakemake/tmp.txt"),
    ],
)
def test_temporary_names_are_not_shown(temporary, final):
    assert final_name(Path(temporary)) == Path(final)


def chained(*, cause: bool, number: int) -> RuntimeError:
    """What torch, Zarr or a pool make of it: another error behind the disk's."""
    try:
        try:
            raise error_of(number, "/x")
        except OSError as error:
            if cause:
                raise RuntimeError("unexpected pos 64 vs 0") from error
            raise RuntimeError("unexpected pos 64 vs 0")  # noqa: B904 - as the writer raises it
    except RuntimeError as error:
        return error


def test_wrapped_errors_are_looked_through():
    assert "/x: no space left" in str(user_error(chained(cause=True, number=errno.ENOSPC)))
    assert "/x: no space left" in str(user_error(chained(cause=False, number=errno.ENOSPC)))
    assert "/x: permission denied" in str(user_error(chained(cause=True, number=errno.EACCES)))
    assert user_error(chained(cause=False, number=errno.EACCES)) is None, "it may have been dealt with"


def test_other_errors_pass_through():
    own = UserError("a box outside the frame")
    for error in (own, KeyError("x"), FileNotFoundError(errno.ENOENT, "no such file", "labels.csv")):
        with pytest.raises(type(error)) as raised, told_as_user_error("out"):
            raise error
        assert raised.value is error


def test_what_is_free_is_told(tmp_path, monkeypatch):
    monkeypatch.setattr(disk_errors.shutil, "disk_usage", lambda _: SimpleNamespace(free=3 * 2**20))
    monkeypatch.setattr(disk_errors.os, "statvfs", lambda _: SimpleNamespace(f_files=100, f_favail=0))
    told = str(user_error(error_of(errno.ENOSPC), tmp_path / "no" / "such" / "folder" / "file"))
    assert f"3.0 MiB and 0 file entries (inodes) free now at {tmp_path}; " in told


def full(*arguments: object) -> None:
    raise error_of(errno.ENOSPC)


def test_a_file_is_written_whole_or_not_at_all(tmp_path, monkeypatch):
    file = tmp_path / "deep" / "facts.json"
    write_text_atomic(file, "old")
    monkeypatch.setattr("acar.files._sync", full)
    for write in (lambda: write_text_atomic(file, "new"), lambda: write_bytes_atomic(file, b"new")):
        with pytest.raises(UserError, match=rf"^{file}: no space left"):
            write()
    assert file.read_text() == "old" and list(file.parent.iterdir()) == [file]


def test_a_folder_appears_whole_or_not_at_all_and_gives_its_space_back(tmp_path):
    final = tmp_path / "stage1"
    with finished_folder(final) as folder:
        (folder / "a").write_text("old")
    with pytest.raises(UserError, match=rf"^{final}: no space left"), finished_folder(final) as folder:
        (folder / "a").write_text("new")
        full()
    told = rf"^{final / 'b'}: no space left"
    with pytest.raises(UserError, match=told), finished_folder(final) as folder, atomic_path(folder / "b"):
        full()
    assert (final / "a").read_text() == "old" and list(tmp_path.iterdir()) == [final]
    with finished_folder(final) as folder:
        (folder / "a").write_text("new")
    assert (final / "a").read_text() == "new"


def test_a_refused_rename_names_the_final_folder(tmp_path, monkeypatch):
    (tmp_path / "work").mkdir()
    monkeypatch.setattr("acar.files.os.rename", full)
    with pytest.raises(UserError, match=rf"^{tmp_path / 'final'}: no space left"):
        replace_folder(tmp_path / "work", tmp_path / "final")
