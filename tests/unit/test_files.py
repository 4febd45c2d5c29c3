"""What is refused before the work: outputs that could not be written, or would replace an input."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from acar.errors import UserError
from acar.files import atomic_path, check_output, check_output_folder, replace_together


@pytest.fixture
def there(tmp_path: Path) -> Path:
    (tmp_path / "in.csv").write_text("a\n")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "one.txt").write_text("b\n")
    (tmp_path / "link.csv").symlink_to(tmp_path / "in.csv")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    return tmp_path


def test_new_names_and_other_files_are_taken(there: Path) -> None:
    inputs = [there / "in.csv", there / "folder"]
    (there / "old.json").write_text("{}")
    for name in ("new.json", "old.json", "not/yet/there.json", "folder/new.json"):
        check_output(there / name, inputs)
    check_output_folder(there / "folder")
    check_output_folder(there / "not" / "yet")
    assert (there / "old.json").read_text() == "{}" and not (there / "not").exists()


@pytest.mark.parametrize(
    ("name", "complaint"),
    [
        ("folder", "--out .*folder: a folder"),
        ("in.csv", "another file of this command .*in.csv"),
        ("link.csv", "another file of this command .*in.csv"),
        ("folder/../in.csv", "another file of this command .*in.csv"),
        ("folder/one.txt", "another file of this command .*folder"),
        ("in.csv/x.json", "in.csv is a file, expected a folder"),
        ("in.csv/deeper/x.json", "in.csv is a file, expected a folder"),
        ("/dev/null", "a device or pipe"),
        ("loop", "--out .*loop: symbolic links lead back to themselves; .* name another"),
        ("x" * 256, "--out .*x: the name is too long; .* name another"),
    ],
)
def test_others_are_refused(there: Path, name: str, complaint: str) -> None:
    with pytest.raises(UserError, match=complaint):
        check_output(there / name, [there / "in.csv", there / "folder"], option="--out")


def test_a_folder_to_be_may_not_be_a_file(there: Path) -> None:
    for name in ("in.csv", "in.csv/deeper"):
        with pytest.raises(UserError, match=r"OUT .*in.csv is a file, expected a folder"):
            check_output_folder(there / name, option="OUT")


def test_a_folder_without_permission(there: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("acar.files.os.access", lambda *_: False)  # root may do anything
    with pytest.raises(UserError, match="may not be written by this user"):
        check_output(there / "new.json")


def test_an_input_may_not_lead_in_a_circle(there: Path) -> None:
    with pytest.raises(UserError, match="loop: symbolic links lead back to themselves"):
        check_output(there / "new.json", [there / "loop"])


def test_folders_that_take_no_file() -> None:
    if not os.access("/proc", os.W_OK):  # where it is told by its permissions
        pytest.skip("this user may not write anywhere")
    for check, path in (
        (check_output, "/proc/x.csv"),
        (check_output, "/proc/a/x"),
        (check_output_folder, "/proc/a"),
    ):
        with pytest.raises(UserError, match="/proc"):
            check(path)


@pytest.mark.parametrize("name", ["x" * 251 + ".csv", "é" * 127, "a." + "y" * 253, ".hidden"])
def test_the_longest_names_are_written(tmp_path: Path, name: str) -> None:
    with atomic_path(tmp_path / name) as temporary:
        assert temporary.name.startswith(".") and temporary.name != name
        assert temporary.suffix == ".csv" or not name.endswith(".csv")
        temporary.write_text("whole")
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [(name, "whole")]


def _text(text: str) -> Callable[[Path], object]:
    return lambda path: path.write_text(text)


def _contents(folder: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in folder.iterdir() if path.is_file()}


def test_files_that_belong_together_are_replaced(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("old")
    replace_together({tmp_path / "a.csv": _text("new a"), tmp_path / "deeper" / "b.json": _text("new b")})
    assert _contents(tmp_path) == {"a.csv": "new a"}
    assert _contents(tmp_path / "deeper") == {"b.json": "new b"}


def test_no_final_name_changes_before_the_last_file_is_written(tmp_path: Path) -> None:
    seen: list[dict[str, str]] = []

    def look(path: Path) -> None:
        assert path.suffix == ".json"
        seen.append({name: text for name, text in _contents(tmp_path).items() if not name.startswith(".")})
        path.write_text("new b")

    for name in ("a.csv", "b.json"):
        (tmp_path / name).write_text("old")
    replace_together({tmp_path / "a.csv": _text("new a"), tmp_path / "b.json": look})
    assert seen == [{"a.csv": "old", "b.json": "old"}]
    assert _contents(tmp_path) == {"a.csv": "new a", "b.json": "new b"}


@pytest.mark.parametrize(
    ("error", "raised", "complaint"),
    [
        (OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)), UserError, r"b\.json: no space left"),
        (ValueError("not a number"), ValueError, "not a number"),
        (KeyboardInterrupt("stopped"), KeyboardInterrupt, "stopped"),
    ],
)
def test_one_file_that_fails_replaces_none(
    tmp_path: Path, error: BaseException, raised: type[BaseException], complaint: str
) -> None:
    def fail(path: Path) -> None:
        path.write_text("half")
        raise error

    old = {"a.csv": "old a", "b.json": "old b"}
    for name, text in old.items():
        (tmp_path / name).write_text(text)
    writers = {tmp_path / "a.csv": _text("new"), tmp_path / "b.json": fail, tmp_path / "c": _text("new")}
    with pytest.raises(raised, match=complaint):
        replace_together(writers)
    assert _contents(tmp_path) == old


def test_a_folder_in_the_place_of_one_replaces_none(tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    with pytest.raises(UserError, match="b: a folder; expected a file's name"):
        replace_together({tmp_path / "a": _text("new"), tmp_path / "b": _text("new")})
    assert [path.name for path in tmp_path.iterdir()] == ["b"]
