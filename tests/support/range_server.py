"""A local web server of files that answers ranges, counts what it sends, and fails when told to."""

from __future__ import annotations

import hashlib
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

from support.http_server import listening


@dataclass
class Trouble:
    """What happens to one answer: another status, a pause, or an end after some bytes."""

    status: int = 0
    end_after: int | None = None
    pause: float = 0.0  # s


@dataclass
class RangeServer:
    """The files by path, what was asked and sent, and what is still to go wrong."""

    files: dict[str, bytes] = field(default_factory=dict)
    trouble: dict[str, list[Trouble]] = field(default_factory=lambda: defaultdict(list))
    asked: list[tuple[str, str, str | None]] = field(default_factory=list)
    sent: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    ranges: bool = True
    heads: bool = True
    etags: bool = True
    url: str = ""

    def put(self, file: Path, path: str = "") -> str:
        """Serve a file; return its address."""
        path = path or f"/{file.name}"
        self.files[path] = file.read_bytes()
        return self.url + path

    def count(self, method: str) -> int:
        """How many requests of a method there were."""
        return sum(one[0] == method for one in self.asked)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_files: RangeServer

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def do_GET(self) -> None:
        self._answer(body=True)

    def _answer(self, body: bool) -> None:
        served = self.server_files
        wanted = self.headers.get("Range")
        served.asked.append((self.command, self.path, wanted))
        waiting = served.trouble[self.path] if body else []
        fault = waiting.pop(0) if waiting else Trouble()
        content = served.files.get(self.path)
        status = fault.status or (404 if content is None else 200)
        if not body and not served.heads:
            status = 405
        headers = {"ETag": f'"{hashlib.sha1(content or b"").hexdigest()}"'} if served.etags else {}
        if content is None or status != 200:
            content = b""
        elif wanted and served.ranges:
            begin, end = (int(number) for number in wanted.removeprefix("bytes=").split("-"))
            headers["Content-Range"] = f"bytes {begin}-{end}/{len(content)}"
            content, status = content[begin : end + 1], 206
        time.sleep(fault.pause)
        self.send_response(status)
        for name, value in {"Content-Length": str(len(content)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if body:
            if fault.end_after is not None:
                content, self.close_connection = content[: fault.end_after], True
            served.sent[self.path] += len(content)
            self.wfile.write(content)

    def log_message(self, *_: Any) -> None:
        pass


@contextmanager
def ranges_served() -> Iterator[RangeServer]:
    """Serve files until the block ends."""
    served = RangeServer()
    handler = type("Handler", (_Handler,), {"server_files": served})
    with listening(handler) as served.url:
        yield served
