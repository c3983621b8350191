"""An S3 server that writes down each answer; run by the Python that moto is installed for.

It logs one JSON object a line: time (s since 1970), method, path, range and bytes of the answer.
"""

from __future__ import annotations

import json
import sys
import threading
import time
from collections.abc import Callable, Iterable
from typing import Any


def logged(application: Callable[..., Iterable[bytes]], path: str) -> Callable[..., Any]:
    """Return a WSGI application that logs what another one answers."""
    turn = threading.Lock()

    def answered(environ: dict[str, Any], start: Callable[..., Any]) -> Iterable[bytes]:
        def begin(status: str, headers: list[tuple[str, str]], *more: Any) -> Any:
            sizes = [value for name, value in headers if name.lower() == "content-length"]
            line = {
                "time": time.time(), "method": environ["REQUEST_METHOD"],
                "path": environ["PATH_INFO"], "range": environ.get("HTTP_RANGE"),
                "bytes": int(sizes[0]) if sizes else 0,
            }  # fmt: skip
            with turn, open(path, "a") as file:
                file.write(json.dumps(line) + "\n")
            return start(status, headers, *more)

        return application(environ, begin)

    return answered


def main(port: str, path: str) -> None:
    from moto.server import (  # type: ignore[import-not-found]
        DomainDispatcherApplication,
        MotoRequestHandler,
        create_backend_app,
    )
    from werkzeug.serving import run_simple  # type: ignore[import-not-found]

    run_simple(
        "127.0.0.1", int(port), logged(DomainDispatcherApplication(create_backend_app), path),
        threaded=True, request_handler=MotoRequestHandler,
    )  # fmt: skip


if __name__ == "__main__":
    main(*sys.argv[1:])
