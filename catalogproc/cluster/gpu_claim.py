"""Claim a GPU for a worker process, and restrict torch to it."""

from __future__ import annotations

import os
import re
import socket
import tempfile
from collections.abc import Sequence
from pathlib import Path

from catalogproc.cluster.gpu import CPU, VISIBLE, Device, discover
from catalogproc.errors import LockedError, WorkerError
from catalogproc.io.locks import Lock


class Claim:
    """The exclusive use of a device, until it is released or the process ends.

    The claim is a lock on a file in the folder for temporary files, named after the device.
    The kernel releases it when the process ends, also by a crash.

    Parameters
    ----------
    device
        The claimed device.
    locks
        The locks, which it releases.
    """

    def __init__(self, device: Device, *locks: Lock) -> None:
        self.device = device
        self._locks = locks

    def release(self) -> None:
        """Release the device; a second call does nothing."""
        for lock in self._locks:
            lock.release()
        self._locks = ()

    def confirm(self, actual: Device, folder: Path | None = None) -> Claim:
        """Return a claim on the device that CUDA reports, and on this one too if it differs.

        Parameters
        ----------
        actual
            The device that CUDA shows to this process.
        folder
            As in :func:`claim`.
        """
        if self._locks and actual.uuid != self.device.uuid:
            more = claim((actual,), folder=folder)
            locks = (*self._locks, *more._locks)
            self._locks = more._locks = ()
            return Claim(actual, *locks)
        self.device = actual
        return self


def claim(devices: Sequence[Device], *, share: bool = False, folder: Path | None = None) -> Claim:
    """Claim the first of the devices that no other process of this host has claimed.

    Parameters
    ----------
    devices
        In order of preference. The CPU needs no lock.
    share
        Take the first device without a lock.
    folder
        Folder of the lock files; by default that for temporary files.

    Raises
    ------
    WorkerError
        Every device is taken; the error names the processes.
    """
    taken = []
    for device in devices:
        if device.kind == "cpu" or share:
            return Claim(device)
        name = re.sub(r"[^A-Za-z0-9-]", "_", device.uuid or device.token)
        path = (folder or Path(tempfile.gettempdir())) / f"catalogproc-{name}.lock"
        try:
            return Claim(device, Lock(path))
        except LockedError as error:
            taken.append(f"{device.label} ({error.found})")
    raise WorkerError(
        "every GPU that this worker may use is taken by another process",
        wanted="one GPU per worker",
        found="; ".join(taken) or "no GPU",
        where=socket.gethostname(),
        advice="start fewer workers on this host",
    )


def pin(kind: str, *, share: bool = False, folder: Path | None = None) -> Claim:
    """Claim a device for this process and restrict torch to it, before CUDA is initialised.

    Only devices that the launcher made visible are considered: the first that is free is
    claimed, and CUDA_VISIBLE_DEVICES is set to it.

    Parameters
    ----------
    kind
        ``cpu``, ``cuda``, or ``auto``: the CPU if no GPU was made visible.
    share, folder
        As in :func:`claim`.

    Raises
    ------
    WorkerError
        No GPU although ``cuda`` or CUDA_VISIBLE_DEVICES asks for one, all of them taken, or
        CUDA already initialised on several GPUs, so that it cannot be restricted any more.
    """
    if kind == "cpu":
        return Claim(CPU)
    import torch

    visible = _discover_for_torch()
    if not visible:
        if kind == "auto" and not (torch.version.cuda and os.environ.get(VISIBLE)):
            return Claim(CPU)
        # Also if it was given a GPU that is gone: nobody would notice that it uses the CPU.
        raise WorkerError(
            "this worker sees no GPU",
            wanted="one CUDA device",
            found=f"torch {torch.__version__}, {VISIBLE}={os.environ.get(VISIBLE, 'unset')}",
            where=socket.gethostname(),
        )
    if len(visible) > 1 and torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        raise WorkerError(
            "CUDA is already in use in this process, on several GPUs",
            wanted="a process that has not touched CUDA, or one visible GPU",
            found=", ".join(gpu.label for gpu in visible),
            where=socket.gethostname(),
        )
    claimed = claim(visible, share=share, folder=folder)
    try:
        os.environ.update(claimed.device.environment)
        return claimed.confirm(_cuda_device(claimed.device), folder)
    except BaseException:
        claimed.release()
        raise


def _discover_for_torch() -> tuple[Device, ...]:
    """Return the GPUs that this process may use, without initialising CUDA."""
    import torch

    if torch.version.cuda is None:
        return ()
    visible = discover()
    if not visible and (count := torch.cuda.device_count()):  # a container without nvidia-smi
        tokens = [token for token in os.environ.get(VISIBLE, "").split(",") if token]
        visible = tuple(Device("cuda", token) for token in tokens[:count] or map(str, range(count)))
    return visible


def _cuda_device(device: Device) -> Device:
    """Return the device with the name and UUID that CUDA reports for the visible one."""
    import torch

    torch.cuda.set_device(0)
    properties = torch.cuda.get_device_properties(0)
    uuid = str(getattr(properties, "uuid", ""))
    if device.uuid.startswith("MIG-") or not uuid:
        uuid = device.uuid
    elif not uuid.startswith("GPU-"):
        uuid = f"GPU-{uuid}"
    return Device("cuda", device.token, uuid, str(properties.name))
