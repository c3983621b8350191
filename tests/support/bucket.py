"""A bucket of a local S3 server (moto), used through another client than catalogproc."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import time
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from pyarrow import fs
from support import s3_server

KEY = "tell-nobody-77ab"
PYTHON = Path(sys.prefix) / "s3" / "bin" / "python"
"""Of the environment in which moto is installed; see the Makefile."""


@dataclass
class Bucket:
    """The bucket ``gaia``; ``log`` is the file of the server's answers."""

    log: Path
    port: int = 0
    process: subprocess.Popen[bytes] = field(init=False)

    def start(self) -> None:
        if not self.port:
            with socket.socket() as free:
                free.bind(("127.0.0.1", 0))
                self.port = free.getsockname()[1]
        self.process = subprocess.Popen(
            [PYTHON, s3_server.__file__, str(self.port), self.log],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        for _ in range(300):
            try:
                socket.create_connection(("127.0.0.1", self.port), 1).close()
                break
            except OSError:
                time.sleep(0.1)
        self.files.create_dir("gaia")

    def stop(self) -> None:
        self.process.kill()
        self.process.wait()

    @cached_property
    def files(self) -> fs.S3FileSystem:
        return fs.S3FileSystem(
            endpoint_override=f"http://127.0.0.1:{self.port}", access_key="a", secret_key=KEY,
            region="us-east-1", allow_bucket_creation=True,
        )  # fmt: skip

    def put(self, file: Path, key: str) -> None:
        self.write(key, file.read_bytes())

    def write(self, key: str, data: bytes) -> None:
        with self.files.open_output_stream(f"gaia/{key}", compression=None) as sink:
            sink.write(data)

    def names(self, prefix: str) -> list[str]:
        chosen = fs.FileSelector(f"gaia/{prefix}", recursive=True, allow_not_found=True)
        found = [info.path for info in self.files.get_file_info(chosen) if info.is_file]
        return [path.removeprefix(f"gaia/{prefix}/") for path in found]

    def content(self, prefix: str) -> dict[str, bytes]:
        """Return the objects, while nobody writes."""
        return {name: self.read(f"{prefix}/{name}") for name in self.names(prefix)}

    def read(self, key: str) -> bytes:
        with self.files.open_input_stream(f"gaia/{key}", compression=None) as source:
            return bytes(source.read())

    def answers(self, below: str) -> list[dict[str, Any]]:
        """Return the answers to requests to read or look up objects whose keys begin alike."""
        lines = map(json.loads, self.log.read_text().splitlines())
        return [
            line
            for line in lines
            if line["method"] in ("GET", "HEAD") and line["path"].startswith(f"/gaia/{below}")
        ]
