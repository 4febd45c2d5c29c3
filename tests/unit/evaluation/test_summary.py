from __future__ import annotations

from typing import Any

from acar.evaluation.summary import headline, mean_or_none


def metrics(pose: float | None, long: float | None, clip_only: float | None = 0.55) -> dict[str, Any]:
    classes = [
        {"id": 1, "ap": pose, "chance": 0.25, "clip_only": None},
        {"id": 2, "ap": long, "chance": 0.5, "clip_only": clip_only},
        {"id": 3, "ap": None, "chance": 0.0, "clip_only": None},
    ]
    known = [v for v in (pose, long) if v is not None]
    return {
        "mAP": sum(known) / len(known) if known else None,
        "classes": classes,
        "groups": {
            "pose": {"mAP": pose, "chance": 0.25, "clip_only": None, "classes": [1]},
            "long-term": {"mAP": long, "chance": 0.5, "clip_only": clip_only, "classes": [2, 3]},
        },
    }


def test_both_stages_and_the_control() -> None:
    text = headline(
        {"stage1": metrics(0.9, 0.6), "stage2": metrics(0.92, 0.8), "stage2_wrong_bank": metrics(0.9, 0.55)}
    )
    assert text == "\n".join(
        [
            "mAP, %       chance  clip only  stage 1  stage 2  wrong bank   gain",
            "-------------------------------------------------------------------",
            "pose           25.0          -     90.0     92.0        90.0   +2.0",
            "long-term      50.0       55.0     60.0     80.0        55.0  +20.0",
            "all classes    37.5          -     75.0     86.0        72.5  +11.0",
        ]
    )


def test_one_stage_alone_has_no_gain() -> None:
    text = headline({"stage1": metrics(0.9, 0.6)})
    assert "gain" not in text and "stage 2" not in text
    assert text.splitlines()[-1].split() == ["all", "classes", "37.5", "-", "75.0"]


def test_undefined_figures_are_dashes() -> None:
    lines = headline({"stage1": metrics(None, 0.5), "stage2": metrics(None, 0.6)}).splitlines()
    assert lines[2].split() == ["pose", "25.0", "-", "-", "-", "-"]
    nothing = headline({"stage2": metrics(None, None)}).splitlines()[-1]
    assert nothing.split() == ["all", "classes", "-", "-", "-"]


def test_nothing_yet() -> None:
    assert headline({}) == "nothing evaluated yet"


def test_a_mean_with_an_unknown_part_is_unknown() -> None:
    assert mean_or_none([0.25, 0.75]) == 0.5
    assert mean_or_none([0.25, None]) is None
    assert mean_or_none([]) is None
