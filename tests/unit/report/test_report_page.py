"""The page: numbers, needing no other file, and no harm from what is missing or hostile."""

from __future__ import annotations

import html
import json
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import pytest

from acar.config import Config, parse_config
from acar.paths import Paths
from acar.report.collect import VARIANTS, collect
from acar.report.page import byte_size, class_rows, count, group_rows, percent, render, seconds, signed
from acar.stages import report

VOID = {"meta", "link", "img", "br", "hr", "input", "image", "rect", "path", "use"}


class Page(HTMLParser):
    """Collects attributes, text and script elements, and checks that tags are nested properly."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.attributes: list[tuple[str, str, str]] = []
        self.open: list[str] = []
        self.text = ""
        self.ids: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.attributes += [(tag, name, value or "") for name, value in attrs]
        self.ids += [value for name, value in attrs if name == "id"]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.attributes += [(tag, name, value or "") for name, value in attrs]

    def handle_endtag(self, tag):
        if tag not in VOID:
            assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


def written(config: Config) -> tuple[str, Page]:
    report.run(config)
    text = Paths.of(config).report.read_text(encoding="utf-8")
    page = Page(text)
    assert page.open == []
    return text, page


@pytest.fixture(scope="module")
def finished(build, tmp_path_factory) -> tuple[str, Page]:
    """The page of the whole made-up run, for tests that only look at it."""
    return written(build(tmp_path_factory.mktemp("run") / "results"))


@pytest.fixture
def undrawn(monkeypatch):
    """Leaves the curves empty: drawing them is most of a page's time."""
    for name in ("training_svg", "precision_recall_svg"):
        monkeypatch.setattr(f"acar.report.plots.{name}", lambda *data: "<svg></svg>")


def cells(text: str, row: str) -> list[str]:
    """The cells of the first table row whose head is `row`."""
    body = re.search(rf"<th>{re.escape(row)}\b.*?</tr>", text, re.DOTALL)
    assert body, row
    return [
        re.sub(r"<[^>]+>", "", cell).strip()
        for cell in re.findall(r"<td[^>]*>(.*?)</td>", body[0], re.DOTALL)
    ]


def test_scores_stand_beside_chance_and_the_best_of_the_clip(finished):
    text, _ = finished
    assert cells(text, "long term") == ["31.4", "74.6", "+43.2", "30.5", "+44.1", "30.1", "35.2"]
    assert cells(text, "crouch")[:3] == ["87.1", "86.6", "−0.5"]
    assert cells(text, "unseen")[:2] == ["–", "–"]
    assert cells(text, "all classes")[:2] == ["62.8", "72.3"]
    assert "long-term classes cannot be seen in the clip" in text


def test_every_section_has_its_numbers(finished):
    text, page = finished
    assert cells(text, "persons") == ["95.4", "97.1", "1\u2009021", "987"]
    assert cells(text, "Stage\u00a01")[:2] == ["18\u2009000", "1\u2009234\u2009567"]
    assert cells(text, "train_stage1")[:2] == ["1", "20 min 34 s"]
    assert "15\u2009234" in page.text and "87.2 MiB" in page.text and "43.2" in page.text
    assert "seed: 4711" in page.text
    assert "moov atom <lost>" in page.text
    assert re.search(r"torch\s2\.", page.text)
    assert "+1 s, up to 13.3 %" in page.text
    assert cells(text, "val")[0] == "4\u2009321"


def test_page_needs_no_other_file(finished):
    text, page = finished
    assert "http://" not in text and "https://" not in text
    assert "@import" not in text and "<script" not in text
    for tag, name, value in page.attributes:
        if name in ("src", "href", "xlink:href", "srcset", "data", "poster"):
            assert value.startswith(("data:", "#")), (tag, name, value[:80])
        assert not name.startswith("on"), (tag, name)
    assert all(target.startswith("#") for target in re.findall(r"url\(([^)]*)\)", text))
    assert ("meta", "name", "viewport") in page.attributes
    assert len(text.encode()) < 1_000_000


def test_ids_are_unique_and_links_lead_somewhere(finished):
    text, page = finished
    assert len(page.ids) == len(set(page.ids))
    wanted = [v[1:] for _, n, v in page.attributes if n in ("href", "xlink:href") and v.startswith("#")]
    wanted += re.findall(r"url\(#([^)]*)\)", text)
    assert wanted and set(wanted) <= set(page.ids)


def test_hostile_class_names_are_text(finished):
    _, page = finished
    assert '<img src=x onerror=alert(1)>&"$x$' in page.text
    assert not any(tag == "img" for tag, _, _ in page.attributes)


def test_report_is_repeatable(fake_run):
    assert written(fake_run)[0] == written(fake_run)[0]


def test_an_empty_results_folder_gives_a_page(tmp_path):
    _, page = written(parse_config({"run": {"results": str(tmp_path / "nothing")}}))
    for sentence in ("No variant has been evaluated yet", "No training log", "was not measured",
                     "No example key frames", "No attention was saved", "No bank has been sealed",
                     "No timings were recorded"):  # fmt: skip
        assert sentence in page.text, sentence


PARTS = ["evaluation", "evaluation/stage1", "evaluation/stage2", "bank", "bank/val/manifest.json", "ingest",
         "data", "data/law.json", "data/val_excluded.csv", "predictions", "stage1", "stage1/metrics.jsonl",
         "stage2/facts.json", "detector", "config.yaml"]  # fmt: skip


def test_any_missing_part_is_tolerated(fake_run, undrawn):
    root = Path(fake_run.run.results)
    for part in PARTS:
        aside = (root / part).rename(root / "aside")
        html = _render(fake_run)
        assert Page(html) and "What the feature bank" in html, part
        aside.rename(root / part)


DAMAGED = ["evaluation/stage2/metrics.json", "stage1/facts.json", "bank/val/manifest.json",
           "stage1/metrics.jsonl", "predictions/stage2/shard-000/examples.npz", "timings/synthesize.tsv",
           "data/val.csv", "data/law.json"]  # fmt: skip


@pytest.mark.parametrize("part", DAMAGED)
def test_any_damaged_part_is_tolerated(fake_run, part, undrawn):
    (Path(fake_run.run.results) / part).write_bytes(b'{"a": tru')
    html = _render(fake_run)
    assert Page(html) and "What the feature bank" in html


def _render(config: Config) -> str:
    return render(collect(config))


def test_damage_is_said(fake_run, undrawn):
    (Paths.of(fake_run).predictions("stage2", 0) / "examples.npz").write_bytes(b"PK")
    _, page = written(fake_run)
    assert "Notes on what was read" in page.text and "rerun predict for shard 0" in page.text


def test_without_the_wrong_bank(fake_run, undrawn):
    shutil.rmtree(Paths.of(fake_run).evaluation("stage2_wrong_bank"))
    text, page = written(fake_run)
    assert cells(text, "long term") == ["31.4", "74.6", "+43.2", "30.1", "35.2"]
    assert "predict.wrong_bank" in page.text


def test_only_one_stage(fake_run, undrawn):
    for variant in VARIANTS[1:]:
        shutil.rmtree(Paths.of(fake_run).evaluation(variant))
    text, _ = written(fake_run)
    assert cells(text, "long term") == ["31.4", "30.1", "35.2"]
    assert "The comparison needs both stages" in text


def files_config(tmp_path: Path, labels: Path) -> dict:
    split = {"labels": str(labels)}
    return {"data": {"source": "files", "videos": str(tmp_path), "label_map": str(tmp_path / "map.pbtxt"),
                     "train": split, "val": split},
            "detector": {"source": "boxes", "boxes": {"train": "a.csv", "val": "b.csv"}}}  # fmt: skip


@pytest.mark.parametrize(("key_frames", "is_small"), [(49, True), (50, False)])
def test_a_small_val_set_is_said(tmp_path, build, key_frames, is_small, undrawn):
    labels = tmp_path / "labels.csv"
    labels.write_text("".join(f"v,{t},0.1,0.1,0.4,0.9,1,0\n" for t in range(key_frames)), encoding="utf-8")
    _, page = written(build(tmp_path / "results", files_config(tmp_path, labels)))
    assert ("A data set this small proves the path, not the method." in page.text) == is_small
    assert "imported" in page.text
    assert "best AP from the clip alone" not in page.text


def test_drawn_data_are_never_called_small(finished):
    assert "proves the path" not in finished[1].text


def test_rows_follow_the_label_map(fake_run):
    run = collect(fake_run)
    assert [row.name for row in class_rows(run)][:2] == ["stand", "crouch"]
    *groups, overall = group_rows(run)
    assert [row.n_classes for row in groups] == [2, 1, 1, 1]
    assert overall.n_classes == 5  # the class without ground truth does not count
    assert overall.chance == pytest.approx((0.41 + 0.33 + 0.12 + 0.09 + 0.301) / 5)


def test_pictures_stop_at_the_budget(fake_run, monkeypatch, undrawn):
    monkeypatch.setattr("acar.report.page.PICTURES_BUDGET_BYTES", 1)
    text, page = written(fake_run)
    assert text.count("Key frame of") == 1 and "2 more key frames are left out" in page.text


def test_formatters():
    assert (percent(0.5), percent(None), percent(float("nan"))) == ("50.0", "–", "–")
    assert (signed(0.1234), signed(-0.01)) == ("+12.3", "−1.0")
    assert (count(1234567), count(None)) == ("1\u2009234\u2009567", "–")
    assert [seconds(s) for s in (0.42, 12.34, 59.99, 245, 7620)] == [
        "0.42 s",
        "12.3 s",
        "60.0 s",
        "4 min 05 s",
        "2 h 07 min",
    ]
    assert [byte_size(b) for b in (12, 2048, 5 << 20, 3 << 30)] == ["12 B", "2.0 KiB", "5.0 MiB", "3.0 GiB"]


def test_law_is_escaped(fake_run, undrawn):
    path = Paths.of(fake_run).data / "law.json"
    path.write_text(
        json.dumps({"classes": [{"name": "<b>", "cause": "</details><script>"}]}), encoding="utf-8"
    )
    text, _ = written(fake_run)
    assert "<script" not in text and html.escape("</details><script>") in text
