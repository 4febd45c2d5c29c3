"""Downloads against a server on this machine that breaks off, ignores ranges, and answers wrongly."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from weights_layouts import thin_net, write_caffe2

from acar import cli
from acar.errors import UserError
from acar.jobs.owners import sole_owner
from acar.weights import catalogue, fetch
from acar.weights.catalogue import CATALOGUE, Hosted, cache_folder, check_fetched, weights_path

CONTENT = bytes(range(256)) * 9000  # 2.2 MiB
DIGEST = hashlib.sha256(CONTENT).hexdigest()


@dataclass
class Server:
    """What the server does.

    Attributes:
        content: of the one file.
        break_after: bytes after which each of the next answers ends early.
        ranges: whether it sends rests.
        etag, modified, size: what its answers say of the file (size: None for the true one).
        statuses: of the next answers instead of the file.
        asked: the `Range` of each request.
    """

    content: bytes = CONTENT
    break_after: list[int] = field(default_factory=list)
    ranges: bool = True
    etag: str | None = '"one"'
    modified: str | None = None
    size: int | None = None
    tell_size: bool = True
    kind: str = "application/octet-stream"
    statuses: list[int] = field(default_factory=list)
    asked: list[str | None] = field(default_factory=list)
    url: str = ""

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        asked = request.headers.get("Range")
        self.asked.append(asked)
        if self.statuses:
            request.send_error(self.statuses.pop(0))
            return
        begin, size = 0, self.size or len(self.content)
        current = request.headers.get("If-Range") in (self.etag, self.modified)
        if asked and self.ranges and current:
            begin = int(asked.removeprefix("bytes=").rstrip("-"))
            if begin >= size:
                request.send_error(416)
                return
            request.send_response(206)
            request.send_header("Content-Range", f"bytes {begin}-{size - 1}/{size}")
        else:
            request.send_response(200)
        if self.tell_size:
            request.send_header("Content-Length", str(size - begin))
        for name, value in (
            ("ETag", self.etag),
            ("Last-Modified", self.modified),
            ("Content-Type", self.kind),
        ):
            if value:
                request.send_header(name, value)
        request.end_headers()
        end = begin + self.break_after.pop(0) if self.break_after else len(self.content)
        request.wfile.write(self.content[begin:end])
        request.close_connection = True


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    state = Server()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            state.answer(self)

        def log_message(self, *_: object) -> None:
            pass

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    state.url = f"http://127.0.0.1:{http.server_port}/zoo/weights.pkl"
    thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    monkeypatch.setattr(fetch, "BACKOFF_S", 0.0)
    monkeypatch.setattr(fetch, "CHUNK", 1 << 16)
    # Proxies are not for this machine itself: one that is nowhere would fail every request.
    for name in ("http_proxy", "HTTP_PROXY", "https_proxy", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    yield state
    http.shutdown()
    thread.join()
    http.server_close()


def leftovers(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if not path.name.endswith(".lock"))


def test_a_file_comes_whole_and_once(tmp_path: Path, server: Server) -> None:
    hosted = Hosted(server.url, "", len(CONTENT), DIGEST.upper())
    target = tmp_path / "deep" / "w.pkl"
    assert fetch.fetch(hosted, target).read_bytes() == CONTENT
    assert leftovers(target.parent) == ["w.pkl"]
    fetch.fetch(hosted, target)
    assert server.asked == [None]


def test_a_broken_download_goes_on(
    tmp_path: Path, server: Server, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ACAR_PROGRESS_EVERY_S", "0")
    server.break_after = [700_000, 800_000]
    fetch.fetch(Hosted(server.url, ""), tmp_path / "w.pkl")
    assert (tmp_path / "w.pkl").read_bytes() == CONTENT
    assert server.asked == [None, "bytes=700000-", "bytes=1500000-"]
    told = capsys.readouterr().err
    assert "fetch weights.pkl: 1/2 MiB" in told and "s left" in told


def test_many_breaks_are_survived_while_each_brings_something(tmp_path: Path, server: Server) -> None:
    server.break_after = [150_000] * 12
    fetch.fetch(Hosted(server.url, ""), tmp_path / "w.pkl")
    assert (tmp_path / "w.pkl").read_bytes() == CONTENT
    assert len(server.asked) == 13


def test_a_later_command_goes_on(tmp_path: Path, server: Server, capsys: pytest.CaptureFixture[str]) -> None:
    server.break_after = [1_500_000, *[0] * 9]
    with pytest.raises(UserError, match=r"5 attempts in a row failed .*1\.4 MiB are kept"):
        fetch.fetch(Hosted(server.url, ""), tmp_path / "w.pkl")
    assert leftovers(tmp_path) == ["w.pkl.part", "w.pkl.part.json"]
    server.break_after, server.asked = [], []
    fetch.fetch(Hosted(server.url, "", sha256=DIGEST), tmp_path / "w.pkl")
    assert server.asked == ["bytes=1500000-"] and leftovers(tmp_path) == ["w.pkl"]
    assert "going on after 1.4 of 2.2 MiB" in capsys.readouterr().err


def test_the_last_modified_mark_will_do(tmp_path: Path, server: Server) -> None:
    server.etag, server.modified, server.break_after = None, "Wed, 21 Oct 2020 07:28:00 GMT", [700_000]
    fetch.fetch(Hosted(server.url, ""), tmp_path / "w.pkl")
    assert server.asked == [None, "bytes=700000-"]
    assert (tmp_path / "w.pkl").read_bytes() == CONTENT


@pytest.mark.parametrize("why", ["no ranges", "another version", "no mark", "another address", "a torn note"])
def test_what_cannot_be_continued_starts_over(tmp_path: Path, server: Server, why: str) -> None:
    server.break_after = [700_000, *[0] * 9]
    if why == "no mark":
        server.etag = None
    with pytest.raises(UserError, match="5 attempts"):
        fetch.fetch(Hosted(server.url, ""), tmp_path / "w.pkl")
    server.break_after, server.asked = [], []
    if why == "no ranges":
        server.ranges = False
    elif why == "another version":
        server.etag, server.content = '"two"', CONTENT[::-1]
    elif why == "another address":
        server.url += "?download=1"
    elif why == "a torn note":
        (tmp_path / "w.pkl.part.json").write_text('{"url": "http')
    fetch.fetch(Hosted(server.url, ""), tmp_path / "w.pkl")
    assert (tmp_path / "w.pkl").read_bytes() == server.content
    assert leftovers(tmp_path) == ["w.pkl"]


def test_a_rest_of_another_size_starts_over(tmp_path: Path, server: Server) -> None:
    server.break_after = [700_000, *[0] * 9]
    with pytest.raises(UserError):
        fetch.fetch(Hosted(server.url, ""), tmp_path / "w.pkl")
    server.break_after, server.content, server.asked = [], CONTENT + b"more", []  # but the same mark
    fetch.fetch(Hosted(server.url, ""), tmp_path / "w.pkl")
    assert server.asked == ["bytes=700000-", None]
    assert (tmp_path / "w.pkl").read_bytes() == CONTENT + b"more"


def test_a_part_longer_than_the_file_starts_over(tmp_path: Path, server: Server) -> None:
    note = {"url": server.url, "size": None, "etag": '"one"', "modified": None}
    (tmp_path / "w.pkl.part.json").write_text(json.dumps(note))
    (tmp_path / "w.pkl.part").write_bytes(CONTENT + b"more")
    fetch.fetch(Hosted(server.url, ""), tmp_path / "w.pkl")
    assert (tmp_path / "w.pkl").read_bytes() == CONTENT


def test_wrong_sizes_are_refused(tmp_path: Path, server: Server) -> None:
    with pytest.raises(UserError, match=rf"the server has {len(CONTENT)} bytes, published are 17"):
        fetch.fetch(Hosted(server.url, "", size=17), tmp_path / "w.pkl")
    server.tell_size = False
    with pytest.raises(UserError, match="does not tell the size"):
        fetch.fetch(Hosted(server.url, ""), tmp_path / "w.pkl")
    assert leftovers(tmp_path) == []
    fetch.fetch(Hosted(server.url, "", size=len(CONTENT)), tmp_path / "w.pkl")
    assert (tmp_path / "w.pkl").read_bytes() == CONTENT


def test_a_wrong_digest_is_refused(tmp_path: Path, server: Server) -> None:
    with pytest.raises(UserError, match=rf"its SHA-256 is {DIGEST}, expected 0{{64}}; removed"):
        fetch.fetch(Hosted(server.url, "", sha256="0" * 64), tmp_path / "w.pkl")
    assert leftovers(tmp_path) == []
    (tmp_path / "w.pkl").write_bytes(b"mine")
    with pytest.raises(UserError, match="remove it and run"):
        fetch.fetch(Hosted(server.url, "", sha256=DIGEST), tmp_path / "w.pkl")
    assert (tmp_path / "w.pkl").read_bytes() == b"mine"


@pytest.mark.parametrize(
    ("status", "message"), [(404, "404 .*has moved"), (403, "refused"), (410, "gone"), (401, "login")]
)
def test_refusals_are_told_at_once(tmp_path: Path, server: Server, status: int, message: str) -> None:
    server.statuses = [status] * 9
    with pytest.raises(UserError, match=message):
        fetch.fetch(Hosted(server.url, ""), tmp_path / "w.pkl")
    assert len(server.asked) == 1 and leftovers(tmp_path) == []


def test_a_busy_server_is_asked_again(tmp_path: Path, server: Server) -> None:
    server.statuses = [503, 429]
    fetch.fetch(Hosted(server.url, ""), tmp_path / "w.pkl")
    assert len(server.asked) == 3 and (tmp_path / "w.pkl").read_bytes() == CONTENT


def test_a_login_page_is_no_file(tmp_path: Path, server: Server) -> None:
    server.kind = "text/html; charset=utf-8"
    with pytest.raises(UserError, match="sends a web page"):
        fetch.fetch(Hosted(server.url, ""), tmp_path / "w.pkl")


def test_nobody_there(tmp_path: Path, server: Server) -> None:
    with pytest.raises(UserError, match=r"5 attempts .*refused.*nothing has arrived"):
        fetch.fetch(Hosted("http://127.0.0.1:9/w.pkl", ""), tmp_path / "w.pkl")
    for url in ("file:///etc/passwd", "ftp://x/y", "http:///x", "weights.pkl"):
        with pytest.raises(UserError, match="not an address"):
            fetch.fetch(Hosted(url, ""), tmp_path / "w.pkl")


def test_two_at_one_file(tmp_path: Path, server: Server) -> None:
    with (
        sole_owner(tmp_path / ".w.pkl.lock"),
        pytest.raises(UserError, match="is at work on this"),
    ):
        fetch.fetch(Hosted(server.url, ""), tmp_path / "w.pkl")


def test_the_command_fetches_converts_and_the_config_takes_the_name(
    tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_caffe2(tmp_path / "zoo.pkl", thin_net().backbone.state_dict())
    server.content = (tmp_path / "zoo.pkl").read_bytes()
    server.break_after = [len(server.content) // 2]
    monkeypatch.setenv("ACAR_WEIGHTS", str(tmp_path / "cache"))
    monkeypatch.setitem(catalogue.CATALOGUE, "thin_k400", Hosted(server.url, "a thin one"))
    with pytest.raises(UserError, match="run `acar fetch-weights thin_k400`"):
        check_fetched("thin_k400")
    assert cli.main(["fetch-weights", "thin_k400"]) == 0
    told = capsys.readouterr().out
    assert "SlowFast (Caffe2)" in told and told.endswith("model.backbone.weights: thin_k400\n")
    assert weights_path("thin_k400") == tmp_path / "cache" / "thin_k400.safetensors"
    check_fetched("thin_k400")
    assert cli.main(["fetch-weights", "thin_k400"]) == 0
    assert len(server.asked) == 2
    assert cli.main(["fetch-weights", server.url, "--to", str(tmp_path / "here")]) == 0
    assert capsys.readouterr().out.endswith(f"{tmp_path / 'here' / 'weights.safetensors'}\n")


def test_names_and_places(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("ACAR_WEIGHTS", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_folder() == tmp_path / ".cache" / "acar"
    assert cli.main(["fetch-weights", "--list"]) == 0
    listed = capsys.readouterr().out
    assert all(name in listed and hosted.url in listed for name, hosted in CATALOGUE.items())
    assert all(hosted.url.startswith("https://dl.fbaipublicfiles.com/") for hosted in CATALOGUE.values())
    assert "kinetics400/SLOWFAST_8x8_R50.pkl" in CATALOGUE["slowfast_r50_8x8_k400"].url
    assert "ava/SLOWFAST_64x2_R101_50_50.pkl" in CATALOGUE["slowfast_r101_64x2_50_50_ava22"].url
    for arguments, message in (
        (["slowfast_r50_8x8_k40"], "did you mean slowfast_r50_8x8_k400"),
        ([], "give a name"),
        (["slowfast_r50_8x8_k400", "--sha256", "12"], "expected 64 hexadecimal digits"),
        (["http://127.0.0.1:9/"], "names no file"),
        (["http://127.0.0.1:9/x.pkl", "--to", __file__], "expected a folder"),
    ):
        assert cli.main(["fetch-weights", *arguments]) == 2
        assert message in capsys.readouterr().err
    with pytest.raises(UserError, match="did you mean slowfast_r50_8x8_k400"):
        check_fetched("slowfast_r50_8x8_k40")
    check_fetched("some/where.safetensors")  # Snakemake tells of absent files
    check_fetched(None)
