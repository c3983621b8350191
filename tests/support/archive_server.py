"""A local HTTP server with the archive's layout, which fails when it is told to."""

from __future__ import annotations

import gzip
import hashlib
import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa
from support.http_server import listening
from support.xp_files import COLUMNS, csv_bytes, real

XP = "Spectroscopy/xp_continuous_mean_spectrum"
SOURCE = "gaia_source"
LIST = "_MD5SUM.txt"
PREFIXES = {XP: "XpContinuousMeanSpectrum_", SOURCE: "GaiaSource_"}


@dataclass
class Fault:
    """What befalls one answer: a status, or a body that ends or changes."""

    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    break_after: int | None = None  # bytes
    pause: float = 0.0  # s between pieces of 4 KiB
    ranges: bool = True
    conditions: bool = True  # whether If-Range is known


@dataclass
class LocalArchive:
    """The files of a server by path, what was asked, and the faults that are still to come."""

    files: dict[str, bytes] = field(default_factory=dict)
    faults: dict[str, list[Fault]] = field(default_factory=lambda: defaultdict(list))
    asked: list[tuple[str, str, str | None, int]] = field(default_factory=list)
    url: str = ""
    most_at_once: int = 0
    head_status: int = 200
    compressing: bool = False  # texts, also unasked
    sent: int = 0
    _now: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def put(self, folder: str, name: str, content: bytes) -> None:
        """Publish a file."""
        self.files[f"/{folder}/{name}"] = content

    def publish(self, folder: str) -> None:
        """Write the list of MD5 sums of a folder, which names itself too, as the archive's does."""
        names = sorted(path for path in self.files if path.startswith(f"/{folder}/"))
        lines = [
            f"{hashlib.md5(self.files[path]).hexdigest()}  {path.rsplit('/', 1)[1]}"
            for path in names
            if not path.endswith(LIST)
        ]
        lines.append(f"{'0' * 31}1  {LIST}")
        self.put(folder, LIST, ("\n".join(lines) + "\n").encode())

    def gets(self, end: str) -> list[tuple[str, str, str | None, int]]:
        """The GET requests of paths with an end."""
        return [one for one in self.asked if one[0] == "GET" and one[1].endswith(end)]

    @contextmanager
    def counted(self) -> Iterator[None]:
        with self._lock:
            self._now += 1
            self.most_at_once = max(self.most_at_once, self._now)
        try:
            yield
        finally:
            with self._lock:
                self._now -= 1


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    archive: LocalArchive

    def do_HEAD(self) -> None:
        self._answer(Fault(status=self.archive.head_status), body=False)

    def do_GET(self) -> None:
        waiting = self.archive.faults[self.path]
        fault = waiting.pop(0) if waiting else Fault()
        if self.path.endswith(".gz"):
            with self.archive.counted():
                self._answer(fault)
        else:
            self._answer(fault)

    def _answer(self, fault: Fault, body: bool = True) -> None:
        content = self.archive.files.get(self.path)
        status = fault.status if content is not None or fault.status != 200 else 404
        asked = self.headers.get("Range")
        if status != 200:
            self._send(status, b"no", fault.headers, body)
            return
        assert content is not None
        etag = f'"{hashlib.sha1(content).hexdigest()}"'
        headers = {"ETag": etag, "Accept-Ranges": "bytes"}
        begin = int(asked.removeprefix("bytes=").rstrip("-")) if asked else 0
        same = self.headers.get("If-Range") in (None, etag) or not fault.conditions
        if asked and fault.ranges and same:
            status = 206 if begin < len(content) else 416
            end = f"{begin}-{len(content) - 1}" if status == 206 else "*"
            headers["Content-Range"] = f"bytes {end}/{len(content)}"
            content = content[begin:] if status == 206 else b""
        if self.archive.compressing and self.path.endswith(".txt"):
            content, headers["Content-Encoding"] = gzip.compress(content), "gzip"
        self._send(status, content, headers, body, fault)

    def _send(
        self, status: int, content: bytes, headers: dict[str, str], body: bool,
        fault: Fault | None = None,
    ) -> None:  # fmt: skip
        self.archive.asked.append((self.command, self.path, self.headers.get("Range"), status))
        self.send_response(status)
        for name, value in {"Content-Length": str(len(content)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if not body:
            return
        if fault is not None and fault.break_after is not None:
            content, self.close_connection = content[: fault.break_after], True
        for start in range(0, len(content), 4096):
            if fault is not None and fault.pause:
                time.sleep(fault.pause)
            piece = content[start : start + 4096]
            self.wfile.write(piece)
            self.archive.sent += len(piece)

    def log_message(self, *_: Any) -> None:
        pass


@contextmanager
def serving(archive: LocalArchive) -> Iterator[LocalArchive]:
    """Serve an archive until the block ends."""
    handler = type("Handler", (_Handler,), {"archive": archive})
    with listening(handler) as archive.url:
        yield archive


def sorted_stars(rows: int = 60) -> pa.Table:
    """Real spectra, by source_id, as the archive has them."""
    return real(rows).sort_by("source_id")


def small_archive(parts: int = 3, rows: int = 60) -> LocalArchive:
    """Real spectra and a gaia_source of twice as many sources, in files by pixel."""
    archive = LocalArchive()
    stars = sorted_stars(rows)
    cuts = np.linspace(0, rows, parts + 1).astype(int)
    for number, (low, high) in enumerate(pairwise(cuts)):
        span = f"{number * 3112:06d}-{number * 3112 + 3111:06d}.csv.gz"
        part = stars.slice(low, high - low)
        spectra = csv_bytes(part.to_pylist(), COLUMNS, ecsv=True)
        archive.put(XP, PREFIXES[XP] + span, gzip.compress(spectra, 1))
        archive.put(SOURCE, PREFIXES[SOURCE] + span, gzip.compress(_gaia_source(part), 1))
    archive.publish(XP)
    archive.publish(SOURCE)
    return archive


def _gaia_source(part: pa.Table) -> bytes:
    """A row for each star and one without a spectrum beside it; "null" is the archive's missing."""
    lines = [
        "# %ECSV 1.0\n# ---\n# delimiter: ','\n# datatype:",
        "solution_id,designation,source_id,ra,dec,parallax,phot_g_mean_mag,has_xp_continuous",
    ]
    for star in part.column("source_id").to_pylist():
        for source, has in ((star, "True"), (star + 1, "False")):
            parallax = "null" if star % 7 == 0 else f"{star % 97 / 10}"
            words = (1636148068921376768, f'"Gaia DR3 {source}"', source, 10.5, -20.25, parallax)
            lines.append(",".join(map(str, (*words, 14.5, f'"{has}"'))))
    return "\n".join(lines).encode() + b"\n"
