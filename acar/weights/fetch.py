"""Downloads that go on where they broke off, and take their final name only when they are whole.

Beside the part of a file that is there (`NAME.part`) lies a note of what it is a part of (`NAME.part.json`: the
address, the size and the server's marks of the version). A server that has another version by now, or that
cannot send a rest, makes the download start over.
"""

from __future__ import annotations

import hashlib
import http.client
import ipaddress
import json
import os
import re
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, BinaryIO

from acar import __version__
from acar.disk_errors import told_as_user_error, user_error
from acar.errors import UserError
from acar.files import sha256_of, write_json_atomic
from acar.jobs.owners import sole_owner
from acar.progress import progress
from acar.weights.catalogue import Hosted

CHUNK = 1 << 20
TIMEOUT_S = 60.0
ATTEMPTS = 5  # in a row that bring nothing
BACKOFF_S = 1.0  # doubled at each of them
WORTH_ANOTHER_TRY = {408, 425, 429, 500, 502, 503, 504}


class BrokenOffError(Exception):
    """The connection ended early; what has arrived is kept."""


class VersionError(Exception):
    """The part that is there is not of what the server has now."""


@dataclass(frozen=True)
class Version:
    """What a partial file is a part of.

    Attributes:
        url: where it comes from.
        size: bytes of the whole, if the server has told.
        etag, modified: the server's marks of the version, if any.
    """

    url: str
    size: int | None
    etag: str | None
    modified: str | None

    @property
    def mark(self) -> str | None:
        """What a server can compare byte for byte."""
        strong = self.etag if self.etag and not self.etag.startswith("W/") else None
        return strong or self.modified


def fetch(hosted: Hosted, target: str | Path) -> Path:
    """Download a file, or the rest of it, unless it is there.

    Args:
        hosted: the address, with size and SHA-256 where they are known.
        target: the file's final name; the part and its note lie beside it until then.

    Raises:
        UserError: no such address, no connection, another size or digest than known, a full disk, or another
            process is at the same file.
    """
    target = Path(target)
    _check_address(hosted.url)
    if target.is_file():
        _check_digest(target, hosted, remove=False)
        return target
    with told_as_user_error(target):
        target.parent.mkdir(parents=True, exist_ok=True)
    with sole_owner(target.with_name(f".{target.name}.lock")), told_as_user_error(target):
        _Download(hosted, target).run()
    return target


class _Download:
    def __init__(self, hosted: Hosted, target: Path) -> None:
        self.hosted, self.target = hosted, target
        self.part = target.with_name(target.name + ".part")
        self.note = target.with_name(target.name + ".part.json")
        self.bar: Any = None

    def run(self) -> None:
        failures, reason, most = 0, "", self._have()
        while failures < ATTEMPTS:
            if failures:
                time.sleep(BACKOFF_S * 2 ** (failures - 1))
            try:
                self._one_connection()
                break
            except VersionError:
                self._forget()
            except urllib.error.HTTPError as error:
                if error.code == 416:  # more is there than the server has
                    self._forget()
                elif error.code not in WORTH_ANOTHER_TRY:
                    raise self._refused(error) from None
                reason = f"{error.code} {error.reason}"
            except (BrokenOffError, OSError, http.client.HTTPException) as error:
                if user_error(error) is not None:  # the disk's, not the network's
                    raise
                reason = _in_words(error)
            failures = 0 if self._have() > most else failures + 1
            most = max(most, self._have())
        else:
            have = self._have()
            kept = (
                f"{have / 2**20:.1f} MiB are kept, and the same command goes on from there"
                if have
                else ("nothing has arrived; check the network (and http_proxy, https_proxy)")
            )
            raise UserError(f"{self.hosted.url}: {ATTEMPTS} attempts in a row failed ({reason}); {kept}")
        self._finish()

    def _have(self) -> int:
        return self.part.stat().st_size if self.part.is_file() else 0

    def _forget(self) -> None:
        self.part.unlink(missing_ok=True)
        self.note.unlink(missing_ok=True)
        if self.bar is not None:
            self.bar.close()
        self.bar = None

    def _known(self) -> Version | None:
        """What the part is of; None if that is not known, and the part is of no use."""
        try:
            found = Version(**json.loads(self.note.read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError):
            return None
        return found if found.url == self.hosted.url else None

    def _one_connection(self) -> None:
        known, have = self._known(), self._have()
        if known is None or known.mark is None:  # nothing proves that the rest would be of the same version
            self._forget()
            known, have = None, 0
        if known is not None and have and have == known.size:
            return
        headers = {"User-Agent": f"acar/{__version__}", "Accept-Encoding": "identity"}
        if known is not None and known.mark and have:
            headers |= {"Range": f"bytes={have}-", "If-Range": known.mark}
        request = urllib.request.Request(self.hosted.url, headers=headers)
        with _opener(self.hosted.url).open(request, timeout=TIMEOUT_S) as response:
            answer = dict((name.lower(), value) for name, value in response.headers.items())
            if "range" in {name.lower() for name in headers} and response.status == 206:
                assert known is not None
                self._check_rest(answer, known, have)
                self._receive(response, known, have)
            else:
                now = self._version(answer)
                if have:
                    self._say(f"{self.hosted.file_name}: the server has another version or sends no rest; "
                              "starting over")  # fmt: skip
                self._forget()
                write_json_atomic(self.note, asdict(now))
                self._receive(response, now, 0)

    def _version(self, answer: Mapping[str, str]) -> Version:
        coded = answer.get("content-encoding", "identity")
        if coded != "identity":
            raise UserError(f"{self.hosted.url}: the server sends it coded as {coded[:20]}, unasked")
        length = answer.get("content-length", "")
        size = int(length) if length.isdecimal() else None
        if self.hosted.size is not None and size is not None and size != self.hosted.size:
            raise UserError(
                f"{self.hosted.url}: the server has {size} bytes, published are {self.hosted.size}; it is "
                "another file, or a page of a proxy or a login"
            )
        chunked = answer.get("transfer-encoding", "").lower() == "chunked"
        if size is None and not chunked and self.hosted.size is None and self.hosted.sha256 is None:
            raise UserError(
                f"{self.hosted.url}: the server does not tell the size, so a broken download could not be "
                "noticed; pass --sha256"
            )
        if answer.get("content-type", "").startswith("text/html"):
            raise UserError(
                f"{self.hosted.url}: the server sends a web page, not a file: a login, or it has moved"
            )
        return Version(
            self.hosted.url, size or self.hosted.size, answer.get("etag"), answer.get("last-modified")
        )

    def _check_rest(self, answer: Mapping[str, str], known: Version, have: int) -> None:
        told = re.fullmatch(r"bytes (\d+)-(\d+)/(\d+|\*)", answer.get("content-range", ""))
        if not told or int(told[1]) != have:
            raise VersionError
        if told[3] != "*" and known.size is not None and int(told[3]) != known.size:
            raise VersionError
        if known.etag and answer.get("etag", known.etag) != known.etag:
            raise VersionError

    def _receive(self, response: BinaryIO, version: Version, have: int) -> None:
        """Add what comes to the part."""
        if self.bar is None and version.size:
            self.bar = progress(
                total=max(1, version.size >> 20), desc=f"fetch {self.hosted.file_name}", unit="MiB"
            )
            if have:
                self.bar.resume_at(have >> 20, f"after {have / 2**20:.1f} of {version.size / 2**20:.1f} MiB")
        with open(self.part, "ab") as stream:
            while chunk := response.read(CHUNK):
                stream.write(chunk)
                if self.bar is not None:
                    self.bar.update(((have + len(chunk)) >> 20) - (have >> 20))
                have += len(chunk)
                if version.size is not None and have > version.size:
                    break
        if version.size is not None and have < version.size:
            raise BrokenOffError(f"the connection ended after {have} of {version.size} bytes")
        if version.size is not None and have > version.size:
            self._forget()
            raise BrokenOffError(f"the server sent more than the {version.size} bytes that it announced")

    def _finish(self) -> None:
        if self.bar is not None:
            self.bar.close()
        size = self._have()
        if self.hosted.size is not None and size != self.hosted.size:
            self._forget()
            raise UserError(f"{self.hosted.url}: {size} bytes arrived, published are {self.hosted.size}")
        _check_digest(self.part, self.hosted, remove=True)
        with open(self.part, "rb") as stream:
            os.fsync(stream.fileno())
        os.replace(self.part, self.target)
        self.note.unlink(missing_ok=True)

    def _refused(self, error: urllib.error.HTTPError) -> UserError:
        hint = {
            404: "the file has moved, or the name in the address is wrong",
            410: "the file is gone for good",
            401: "it asks for a login",
            403: "access is refused, by the server or by a proxy on the way",
            407: "a proxy on the way asks for a login",
        }.get(error.code, "nothing to do about it here")
        return UserError(f"{self.hosted.url}: the server says {error.code} {error.reason}: {hint}")

    def _say(self, line: str) -> None:
        print(line, file=sys.stderr, flush=True)


def _check_digest(path: Path, hosted: Hosted, *, remove: bool) -> None:
    if hosted.sha256 is None:
        return
    found = sha256_of(path)
    if found != hosted.sha256.lower():
        if remove:
            path.unlink()
            path.with_name(path.name + ".json").unlink(missing_ok=True)
        raise UserError(
            f"{path}: its SHA-256 is {found}, expected {hosted.sha256.lower()}; "
            + (
                "removed; run the same command again"
                if remove
                else "remove it and run the same command again"
            )
        )


def _check_address(url: str) -> None:
    parts = urllib.parse.urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise UserError(f"{url}: not an address that can be fetched; expected http:// or https://")


def _opener(url: str) -> urllib.request.OpenerDirector:
    """Only http and https, also behind redirections; proxies of the environment, but not to this machine itself."""
    opener = urllib.request.OpenerDirector()
    proxies: dict[str, str] | None = {} if _is_loopback(urllib.parse.urlsplit(url).hostname or "") else None
    for handler in (
        urllib.request.ProxyHandler(proxies),
        urllib.request.HTTPHandler(),
        urllib.request.HTTPSHandler(),
        urllib.request.HTTPDefaultErrorHandler(),
        urllib.request.HTTPRedirectHandler(),
        urllib.request.HTTPErrorProcessor(),
        urllib.request.UnknownHandler(),
    ):
        opener.add_handler(handler)
    return opener


def _is_loopback(host: str) -> bool:
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _in_words(error: Exception) -> str:
    reason = getattr(error, "reason", None)
    return str(reason or error or type(error).__name__)[:200]


def is_sha256(text: str) -> bool:
    """Whether a text can be a SHA-256 in hex."""
    return len(text) == hashlib.sha256().digest_size * 2 and re.fullmatch(r"[0-9a-fA-F]+", text) is not None
