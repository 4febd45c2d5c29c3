"""What goes wrong in a loading process is told as if it had happened here."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from acar.errors import UserError
from acar.training import loading


def loaded(monkeypatch: pytest.MonkeyPatch, items: list[Any]) -> list[Any]:
    """What `micro_batches` gives where the loader gives `items`, raising those that are exceptions."""

    def loader(*_: Any, **__: Any) -> Any:
        for item in items:
            if isinstance(item, RuntimeError):
                raise item
            yield item

    monkeypatch.setattr(loading, "DataLoader", loader)
    plan: Any = SimpleNamespace(stream=lambda first, last: iter(()))
    settings: Any = SimpleNamespace(workers=2, iterations=1)
    return list(loading.micro_batches(None, plan, settings, 0))  # type: ignore[arg-type]


def test_batches_come_through(monkeypatch):
    assert loaded(monkeypatch, [1, 2]) == [1, 2]


def test_a_users_mistake_is_raised_here():
    class Clips:
        def __getitem__(self, slot):
            raise UserError(f"clip {slot} is damaged")

    told = loading._Told(Clips())[3]  # type: ignore[arg-type]
    assert isinstance(told, UserError)
    assert loading._collate([{"frames": None}, told]) is told


def test_the_error_among_the_batches_stops_the_training(monkeypatch):
    with pytest.raises(UserError, match="clip 3 is damaged"):
        loaded(monkeypatch, [1, UserError("clip 3 is damaged"), 2])


@pytest.mark.parametrize(
    "text",
    [
        "DataLoader worker (pid 12) is killed by signal: Killed.",
        "DataLoader worker (pid(s) 12) exited unexpectedly",
        "unable to write to file </torch_1_2_3>: No space left on device (28)",
        "unable to allocate shared memory(shm) for file </torch_1>",
    ],
)
def test_a_killed_process_or_full_shared_memory(monkeypatch, text):
    with pytest.raises(UserError, match=r"one of the 2 loading processes is gone \(.*/dev/shm may be short"):
        loaded(monkeypatch, [1, RuntimeError(text)])


def test_any_other_error_is_one_of_ours(monkeypatch):
    with pytest.raises(RuntimeError, match="size mismatch"):
        loaded(monkeypatch, [RuntimeError("size mismatch")])
