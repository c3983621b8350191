"""Which GPU is whose.

A worker sees one device and no other: CUDA_VISIBLE_DEVICES is put into the environment of
its process before anything in it can touch CUDA. Devices are named by UUID where the
driver tells it, since their numbers change with CUDA_DEVICE_ORDER and with every mask.
"""

from __future__ import annotations

import os
import re
import socket
import subprocess
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from catalogproc.errors import Refusal, WorkerError
from catalogproc.io.locks import lock, owner

MASK = "CUDA_VISIBLE_DEVICES"
CHOICES = ("auto", "cpu", "cuda")

_GPU = re.compile(r"^GPU (\d+): (.+?) \(UUID: (GPU-[^)]+)\)")
_MIG = re.compile(r"^\s+MIG (.+?)\s+Device\s+\d+: \(UUID: (MIG-[^)]+)\)")


@dataclass(frozen=True)
class Device:
    """One device that a worker may have to itself.

    Attributes
    ----------
    kind
        ``cpu`` or ``cuda``.
    token
        What CUDA_VISIBLE_DEVICES must hold for a process to see it alone; empty for the CPU.
    uuid, name
        As the driver tells them; empty where nobody has asked it.
    """

    kind: str
    token: str = ""
    uuid: str = ""
    name: str = ""

    @property
    def label(self) -> str:
        """What a receipt says: ``cpu``, or the GPU's UUID and name."""
        if self.kind == "cpu":
            return "cpu"
        return f"{self.uuid or self.token} {self.name}".strip()

    @property
    def environment(self) -> dict[str, str]:
        """What the environment of a process on this device must hold."""
        return {MASK: self.token}


CPU = Device("cpu")


def nvidia_smi() -> str | None:
    """What ``nvidia-smi -L`` prints, or None where there is none or it fails."""
    try:
        done = subprocess.run(
            ["nvidia-smi", "-L"], capture_output=True, text=True, timeout=30, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout


def discover(
    query: Callable[[], str | None] = nvidia_smi,
    environ: Mapping[str, str] | None = None,
) -> tuple[Device, ...]:
    """The GPUs of this machine that an existing CUDA_VISIBLE_DEVICES leaves visible, in order.

    A GPU that is split into MIG devices counts as those and not as itself: CUDA cannot use
    it whole. Where nvidia-smi does not answer there are none.

    Parameters
    ----------
    query
        What lists the devices, in the words of ``nvidia-smi -L``.
    environ
        The environment that may hold the mask; by default this process's.

    Raises
    ------
    Refusal
        A device is named twice in the mask; CUDA would show none at all.
    """
    devices = _listed(query() or "")
    mask = (os.environ if environ is None else environ).get(MASK)
    if mask is None:
        return tuple(device for _, device in devices)
    return _masked(devices, mask)


def _listed(text: str) -> list[tuple[int | None, Device]]:
    """Each device with its number; a MIG device has none of its own."""
    found: list[tuple[int | None, Device]] = []
    for line in text.splitlines():
        if gpu := _GPU.match(line):
            found.append((int(gpu[1]), Device("cuda", gpu[3], gpu[3], gpu[2])))
        elif (mig := _MIG.match(line)) and found:
            number, last = found[-1]
            if number is not None:
                found.pop()  # the whole GPU, now that it is known to be split
            parent = last.name if number is not None else last.name.partition(" MIG ")[0]
            found.append((None, Device("cuda", mig[2], mig[2], f"{parent} MIG {mig[1]}")))
    return found


def _masked(devices: Sequence[tuple[int | None, Device]], mask: str) -> tuple[Device, ...]:
    """As CUDA reads a mask: numbers, UUIDs or their beginnings; the first unknown ends it."""
    visible: list[Device] = []
    for token in (word.strip() for word in mask.split(",")):
        match = [
            device
            for number, device in devices
            if (token.isdigit() and number == int(token))
            or (token.startswith(("GPU-", "MIG-")) and device.uuid.startswith(token))
        ]
        if len(match) != 1:
            break
        # The token stays as it was found: nvidia-smi counts by PCI bus and CUDA by speed, so
        # that a number is safe only in the environment that it was written for.
        if match[0].uuid in {device.uuid for device in visible}:
            raise Refusal(
                "a GPU is named twice, and CUDA would show none",
                wanted="each device once", found=f"{MASK}={mask}", where="environment",
            )  # fmt: skip
        visible.append(replace(match[0], token=token))
    return tuple(visible)


def choose(
    device: str,
    workers: int | None,
    cpu_workers: int,
    *,
    share: bool = False,
    beside: int = 0,
    find: Callable[[], tuple[Device, ...]] = discover,
    cuda_works: Callable[[], bool] | None = None,
) -> tuple[Device, ...]:
    """The device of each worker to start on this machine, one entry a worker.

    Parameters
    ----------
    device
        ``auto`` takes GPUs where there are any that torch can use, ``cpu`` asks for none,
        ``cuda`` insists on them.
    workers
        How many were asked for; None takes one a GPU, or ``cpu_workers`` without any.
    share
        Several workers may have the same GPU, in turns.
    beside
        So many workers on the CPU beside those on GPUs, if there are GPUs.

    Raises
    ------
    Refusal
        ``cuda`` where there is none, or fewer GPUs than workers; with both numbers.
    """
    if device not in CHOICES:
        raise Refusal("no such device", wanted=" | ".join(CHOICES), found=device)
    if workers is not None and workers < 1:
        raise Refusal("a run needs workers", wanted="1 or more", found=workers, where="--workers")
    gpus = () if device == "cpu" else find()
    if gpus and not (cuda_works or _torch_has_cuda)():
        if device == "cuda":
            raise Refusal(
                "this installation of torch has no CUDA",
                wanted="torch built for CUDA",
                found=f"a CPU build, and {len(gpus)} GPUs that it cannot use",
                todo="install torch from the index that fits the driver, or say --device cpu",
            )
        gpus = ()
    if not gpus:
        if device == "cuda":
            raise Refusal(
                "no GPU is visible here",
                wanted="at least one CUDA device",
                found=f"none (nvidia-smi -L, {MASK}={os.environ.get(MASK, 'unset')})",
                todo="say --device cpu, or run where there is a GPU",
            )
        return (CPU,) * (workers or cpu_workers)
    wanted = workers or len(gpus)
    if wanted > len(gpus) and not share:
        raise Refusal(
            "fewer GPUs than workers",
            wanted=f"{wanted} GPUs, one a worker",
            found=f"{len(gpus)}: {', '.join(gpu.label for gpu in gpus)}",
            where="--workers",
            todo=f"say --workers {len(gpus)} or --device cpu",
        )
    return (*(gpus[index % len(gpus)] for index in range(wanted)), *(CPU,) * beside)


def cuda_failed(error: BaseException) -> bool:
    """Whether CUDA itself failed, after which this process can use it no more."""
    import torch

    if isinstance(error, torch.OutOfMemoryError):
        return False
    return isinstance(error, torch.AcceleratorError) or str(error).startswith("CUDA error")


def _torch_has_cuda() -> bool:
    import torch

    return torch.version.cuda is not None


class Claim:
    """A device that this process has to itself until it lets go or dies.

    The claim is a lock on a file named after the device in the folder for temporary files:
    the kernel gives it back when the process dies, however it dies.
    """

    def __init__(self, device: Device, *handles: int) -> None:
        self.device = device
        self._handles = handles

    def release(self) -> None:
        """Let go; a second call does nothing."""
        for handle in self._handles:
            os.close(handle)
        self._handles = ()

    def confirm(self, truth: Device, folder: Path | None = None) -> Claim:
        """This claim on the device that CUDA itself names, which is claimed too if another."""
        if self._handles and truth.uuid != self.device.uuid:
            more = claim((truth,), folder=folder)
            handles = (*self._handles, *more._handles)
            self._handles = more._handles = ()
            return Claim(truth, *handles)
        self.device = truth
        return self


def claim(devices: Sequence[Device], *, share: bool = False, folder: Path | None = None) -> Claim:
    """The first of the devices that no other process of this host has claimed.

    The CPU needs no claim, and none is taken where ``share`` is set.

    Raises
    ------
    WorkerError
        Every device is taken; it says by which processes.
    """
    taken = []
    for device in devices:
        if device.kind == "cpu" or share:
            return Claim(device)
        name = re.sub(r"[^A-Za-z0-9-]", "_", device.uuid or device.token)
        path = (folder or Path(tempfile.gettempdir())) / f"catalogproc-{name}.lock"
        try:
            return Claim(device, lock(path))
        except BlockingIOError:
            taken.append(f"{device.label} ({owner(path)})")
    raise WorkerError(
        "every GPU that this worker may use is taken by another",
        wanted="one GPU a worker",
        found="; ".join(taken) or "no GPU",
        where=socket.gethostname(),
        todo="start fewer workers on this host, or allow them to share",
    )


def pin(kind: str, *, share: bool = False, folder: Path | None = None) -> Claim:
    """Claim a device for this process and make it torch's, before CUDA is initialised.

    What the launcher made visible is kept to: one device is taken as it is; of several the
    first that is free is claimed, and CUDA_VISIBLE_DEVICES narrowed to it. ``auto`` means
    the CPU where no GPU was given.

    Raises
    ------
    WorkerError
        No GPU where ``cuda`` is wanted or CUDA_VISIBLE_DEVICES names one, all of them taken, or
        CUDA already initialised on several, so that this process can no longer be narrowed to
        one.
    """
    if kind == "cpu":
        return Claim(CPU)
    import torch

    visible = _visible_to_torch()
    if not visible:
        if kind == "auto" and not (torch.version.cuda and os.environ.get(MASK)):
            return Claim(CPU)
        # Also where it was given one, that is gone: a worker on the CPU would not be missed.
        raise WorkerError(
            "this worker sees no GPU",
            wanted="one CUDA device",
            found=f"torch {torch.__version__}, {MASK}={os.environ.get(MASK, 'unset')}",
            where=socket.gethostname(),
        )
    if len(visible) > 1 and torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        raise WorkerError(
            "CUDA is already in use in this process, on several GPUs",
            wanted="a process that has not touched CUDA, or one visible GPU",
            found=", ".join(gpu.label for gpu in visible),
            where=socket.gethostname(),
        )
    held = claim(visible, share=share, folder=folder)
    try:
        os.environ.update(held.device.environment)
        return held.confirm(_as_cuda_says(held.device), folder)
    except BaseException:
        held.release()
        raise


def _visible_to_torch() -> tuple[Device, ...]:
    """The GPUs that this process may use; CUDA itself is not initialised by asking."""
    import torch

    if torch.version.cuda is None:
        return ()
    visible = discover()
    if not visible and (count := torch.cuda.device_count()):  # a container without nvidia-smi
        words = [word for word in os.environ.get(MASK, "").split(",") if word]
        visible = tuple(Device("cuda", word) for word in words[:count] or map(str, range(count)))
    return visible


def _as_cuda_says(device: Device) -> Device:
    """The device with the name and UUID that CUDA gives the one that it now shows first."""
    import torch

    torch.cuda.set_device(0)
    properties = torch.cuda.get_device_properties(0)
    uuid = str(getattr(properties, "uuid", ""))
    if device.uuid.startswith("MIG-") or not uuid:
        uuid = device.uuid
    elif not uuid.startswith("GPU-"):
        uuid = f"GPU-{uuid}"
    return Device("cuda", device.token, uuid, str(properties.name))
