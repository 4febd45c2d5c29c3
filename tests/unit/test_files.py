"""What is refused before the work: outputs that could not be written, or would replace an input."""

from __future__ import annotations

from pathlib import Path

import pytest

from acar.errors import UserError
from acar.files import check_output, check_output_folder


@pytest.fixture
def there(tmp_path: Path) -> Path:
    (tmp_path / "in.csv").write_text("a\n")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "one.txt").write_text("b\n")
    (tmp_path / "link.csv").symlink_to(tmp_path / "in.csv")
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
