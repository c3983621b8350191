"""The name of a process in locks and temporary files: its number and its host."""

from __future__ import annotations

import json
import os
import re
import socket
from functools import lru_cache
from typing import Any


def this_process() -> dict[str, Any]:
    """Return the number and the host of this process, as a lock file states them."""
    return {"pid": os.getpid(), "host": socket.gethostname()}


def describe_process(stated: str | bytes) -> str:
    """Return the process that a lock file states, in words.

    Parameters
    ----------
    stated
        The content of the lock file: JSON as :func:`this_process` gives it.
    """
    try:
        process: dict[str, Any] = json.loads(stated)
        return f"process {process['pid']} on {process['host']}"
    except (ValueError, KeyError, TypeError):
        return "an unknown process"


def has_ended(stated: str | bytes) -> bool:
    """Return whether the process that a lock file states ran on this host and has ended.

    Parameters
    ----------
    stated
        The content of the lock file: JSON as :func:`this_process` gives it.
    """
    try:
        process: dict[str, Any] = json.loads(stated)
        return process["host"] == socket.gethostname() and not is_running(int(process["pid"]))
    except (ValueError, KeyError, TypeError):
        return False


def is_running(pid: int) -> bool:
    """Return whether a process runs on this host.

    Parameters
    ----------
    pid
        The number of the process.
    """
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True  # it exists and belongs to another user
    return True


@lru_cache(maxsize=1)
def host_name() -> str:
    """Return this host's name, in characters that a file name may have."""
    return re.sub(r"[^\w.-]", "-", socket.gethostname()) or "host"
