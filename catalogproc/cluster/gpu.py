"""Discover GPUs and assign one to each worker.

A worker sees one device only: CUDA_VISIBLE_DEVICES is set in the environment of its process
before CUDA is initialised. Devices are named by UUID if the driver gives it, because their
numbers depend on CUDA_DEVICE_ORDER and on CUDA_VISIBLE_DEVICES.
"""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from catalogproc.cluster.spec import ClusterConfig
from catalogproc.errors import DeviceError, Refusal

VISIBLE = "CUDA_VISIBLE_DEVICES"
CHOICES = ("auto", "cpu", "cuda")

_GPU = re.compile(r"^GPU (\d+): (.+?) \(UUID: (GPU-[^)]+)\)")
_MIG = re.compile(r"^\s+MIG (.+?)\s+Device\s+\d+: \(UUID: (MIG-[^)]+)\)")


@dataclass(frozen=True)
class Device:
    """One device, which one worker uses.

    Attributes
    ----------
    kind
        ``cpu`` or ``cuda``.
    token
        Value of CUDA_VISIBLE_DEVICES that shows this device only; empty for the CPU.
    uuid, name
        From the driver; empty if unknown.
    """

    kind: str
    token: str = ""
    uuid: str = ""
    name: str = ""

    @property
    def label(self) -> str:
        """``cpu``, or the GPU's UUID and name, as in receipts."""
        if self.kind == "cpu":
            return "cpu"
        return f"{self.uuid or self.token} {self.name}".strip()

    @property
    def environment(self) -> dict[str, str]:
        """Environment variables of a process on this device."""
        return {VISIBLE: self.token}


CPU = Device("cpu")


def nvidia_smi() -> str | None:
    """Return what ``nvidia-smi -L`` prints, or None if it is missing or fails."""
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
    """Return the GPUs of this machine that CUDA_VISIBLE_DEVICES leaves visible, in its order.

    A GPU that is split into MIG devices is replaced by these: CUDA cannot use it as a whole.
    If nvidia-smi does not answer there are none.

    Parameters
    ----------
    query
        Returns the list of devices in the format of ``nvidia-smi -L``.
    environ
        Environment that may hold CUDA_VISIBLE_DEVICES; by default this process's.

    Raises
    ------
    Refusal
        CUDA_VISIBLE_DEVICES names a device twice; CUDA would then show none.
    """
    devices = _parse(query() or "")
    mask = (os.environ if environ is None else environ).get(VISIBLE)
    if mask is None:
        return tuple(device for _, device in devices)
    return _visible(devices, mask)


def _parse(text: str) -> list[tuple[int | None, Device]]:
    """Return each device with its number; a MIG device has no number."""
    found: list[tuple[int | None, Device]] = []
    for line in text.splitlines():
        if gpu := _GPU.match(line):
            found.append((int(gpu[1]), Device("cuda", gpu[3], gpu[3], gpu[2])))
        elif (mig := _MIG.match(line)) and found:
            number, last = found[-1]
            if number is not None:
                found.pop()  # this GPU is split into MIG devices
            parent = last.name if number is not None else last.name.partition(" MIG ")[0]
            found.append((None, Device("cuda", mig[2], mig[2], f"{parent} MIG {mig[1]}")))
    return found


def _visible(devices: Sequence[tuple[int | None, Device]], mask: str) -> tuple[Device, ...]:
    """Read CUDA_VISIBLE_DEVICES as CUDA does: numbers, UUIDs or prefixes, up to an unknown one."""
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
        # The token is not replaced by the UUID: nvidia-smi counts by PCI bus and CUDA by speed,
        # so a number may mean another GPU to CUDA than to nvidia-smi.
        if match[0].uuid in {device.uuid for device in visible}:
            raise Refusal(
                "a GPU is named twice; CUDA would then show none",
                wanted="each device once", found=f"{VISIBLE}={mask}", where="environment",
            )  # fmt: skip
        visible.append(replace(match[0], token=token))
    return tuple(visible)


def choose_devices(
    config: ClusterConfig,
    fitting: int,
    *,
    find: Callable[[], tuple[Device, ...]] = discover,
    cuda_works: Callable[[], bool] | None = None,
) -> tuple[Device, ...]:
    """Return the device of each worker to start on this machine, one entry per worker.

    Parameters
    ----------
    config
        ``device``: ``auto`` takes the GPUs that torch can use if there are any, ``cpu`` takes
        none, ``cuda`` requires them. ``workers``: None starts one per GPU, or ``fitting``
        without GPUs. ``share_gpu`` allows more workers than GPUs. ``cpu_workers`` are added to
        those on GPUs.
    fitting
        Number of CPU workers that fit this machine.
    find
        Returns the visible GPUs.
    cuda_works
        Returns whether torch can use CUDA; by default whether it is built for it.

    Raises
    ------
    Refusal
        No such device, no GPU or no CUDA where required, or fewer GPUs than workers.
    """
    workers = config.workers
    if config.device not in CHOICES:
        raise Refusal("no such device", wanted=" | ".join(CHOICES), found=config.device)
    if workers is not None and workers < 1:
        raise Refusal("a run needs workers", wanted="1 or more", found=workers, where="--workers")
    gpus = _usable_gpus(config.device, find, cuda_works or _torch_has_cuda)
    if not gpus:
        return (CPU,) * (workers or fitting)
    gpu_workers = workers or len(gpus)
    if gpu_workers > len(gpus) and not config.share_gpu:
        raise Refusal(
            "fewer GPUs than workers",
            wanted=f"{gpu_workers} GPUs, one per worker",
            found=f"{len(gpus)}: {', '.join(gpu.label for gpu in gpus)}",
            where="--workers",
            advice=f"give --workers {len(gpus)} or --device cpu",
        )
    on_gpus = (gpus[index % len(gpus)] for index in range(gpu_workers))
    return (*on_gpus, *(CPU,) * config.cpu_workers)


def _usable_gpus(
    device: str, find: Callable[[], tuple[Device, ...]], cuda_works: Callable[[], bool]
) -> tuple[Device, ...]:
    """Return the GPUs that torch can use; none for ``cpu``. Refuse ``cuda`` without any."""
    gpus = () if device == "cpu" else find()
    if gpus and not cuda_works():
        if device == "cuda":
            raise Refusal(
                "this installation of torch has no CUDA",
                wanted="torch built for CUDA",
                found=f"a CPU build, and {len(gpus)} GPUs that it cannot use",
                advice="install torch from the index that fits the driver, or give --device cpu",
            )
        return ()
    if device == "cuda" and not gpus:
        raise Refusal(
            "no GPU is visible",
            wanted="at least one CUDA device",
            found=f"none (nvidia-smi -L, {VISIBLE}={os.environ.get(VISIBLE, 'unset')})",
            advice="give --device cpu, or run on a machine with a GPU",
        )
    return gpus


def device_error(error: RuntimeError, device: str) -> DeviceError | None:
    """Return a DeviceError if the GPU cannot be used any more in this process, else None.

    torch reports failures of cuBLAS and cuDNN as plain RuntimeErrors. So after any RuntimeError
    on a GPU a small product is computed there: CUDA's errors are sticky, it fails as well.

    Parameters
    ----------
    error
        Raised by torch in the middle of the work.
    device
        Label of the worker's device.
    """
    import torch

    if isinstance(error, torch.OutOfMemoryError):
        return None
    if isinstance(error, torch.AcceleratorError) or not (device == CPU.label or _computes()):
        return DeviceError("the GPU failed", found=str(error), where=device)
    return None


def _computes() -> bool:
    """Return whether the GPU of this process still computes."""
    import torch

    try:
        square = torch.ones(8, 8, device="cuda")
        return bool(((square @ square) == 8).all())
    except torch.OutOfMemoryError:
        return True
    except RuntimeError:
        return False


def _torch_has_cuda() -> bool:
    import torch

    return torch.version.cuda is not None
