"""Discovery and assignment of GPUs on made-up hosts: the input is what nvidia-smi -L prints."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from catalogproc.cluster import gpu as module
from catalogproc.cluster import gpu_claim
from catalogproc.cluster.gpu import CPU, Device, choose_devices, device_error, discover
from catalogproc.cluster.gpu_claim import claim, pin
from catalogproc.cluster.spec import ClusterConfig
from catalogproc.errors import Refusal, WorkerError

FOUR = """\
GPU 0: NVIDIA A100-SXM4-40GB (UUID: GPU-0a111111-1111-1111-1111-111111111111)
GPU 1: NVIDIA A100-SXM4-40GB (UUID: GPU-0b222222-2222-2222-2222-222222222222)
GPU 2: NVIDIA A100-SXM4-40GB (UUID: GPU-0c333333-3333-3333-3333-333333333333)
GPU 3: NVIDIA A100-SXM4-40GB (UUID: GPU-0d444444-4444-4444-4444-444444444444)
"""
# The first GPU is split in two, the second is whole, the third split into one.
MIG = """\
GPU 0: NVIDIA H200 (UUID: GPU-0a111111-1111-1111-1111-111111111111)
  MIG 1g.18gb     Device  0: (UUID: MIG-aaaaaaaa-0000-5000-8000-000000000001)
  MIG 3g.71gb     Device  1: (UUID: MIG-aaaaaaaa-0000-5000-8000-000000000002)
GPU 1: NVIDIA H200 (UUID: GPU-0b222222-2222-2222-2222-222222222222)
GPU 2: NVIDIA H200 (UUID: GPU-0c333333-3333-3333-3333-333333333333)
  MIG 7g.141gb    Device  0: (UUID: MIG-cccccccc-0000-5000-8000-000000000003)
"""


def host(text: str | None, mask: str | None = None) -> tuple[Device, ...]:
    environ = {} if mask is None else {"CUDA_VISIBLE_DEVICES": mask}
    return discover(lambda: text, environ)


def test_every_gpu_of_the_host_by_uuid() -> None:
    found = host(FOUR)
    assert [gpu.token[:6] for gpu in found] == ["GPU-0a", "GPU-0b", "GPU-0c", "GPU-0d"]
    assert {gpu.name for gpu in found} == {"NVIDIA A100-SXM4-40GB"}
    assert found[0].label == "GPU-0a111111-1111-1111-1111-111111111111 NVIDIA A100-SXM4-40GB"
    assert found[2].environment == {"CUDA_VISIBLE_DEVICES": found[2].uuid}


@pytest.mark.parametrize("answer", [None, "", "No devices found.\n", "Failed to initialize NVML"])
def test_a_host_without_gpus(answer: str | None) -> None:
    assert host(answer) == ()


def test_mig_devices_replace_the_gpu_that_they_split() -> None:
    assert [(gpu.token[:12], gpu.name) for gpu in host(MIG)] == [
        ("MIG-aaaaaaaa", "NVIDIA H200 MIG 1g.18gb"),
        ("MIG-aaaaaaaa", "NVIDIA H200 MIG 3g.71gb"),
        ("GPU-0b222222", "NVIDIA H200"),
        ("MIG-cccccccc", "NVIDIA H200 MIG 7g.141gb"),
    ]


@pytest.mark.parametrize(
    ("mask", "uuids"),
    [
        ("2,0", ["GPU-0c", "GPU-0a"]),
        ("GPU-0b222222-2222-2222-2222-222222222222", ["GPU-0b"]),
        ("GPU-0d, GPU-0a", ["GPU-0d", "GPU-0a"]),  # prefixes, as CUDA allows
        ("1,-1,3", ["GPU-0b"]),  # CUDA reads up to the first unknown one
        ("7,0", []),
        ("GPU-0", []),  # ambiguous
        ("", []),
        ("NoDevFiles", []),
    ],
)
def test_an_existing_mask_is_read_as_cuda_reads_it(mask: str, uuids: list[str]) -> None:
    assert [gpu.uuid[:6] for gpu in host(FOUR, mask)] == uuids


def test_a_worker_gets_the_token_of_the_mask() -> None:
    # CUDA counts by speed, nvidia-smi by PCI bus: a number must not be replaced.
    assert [gpu.token for gpu in host(FOUR, "2,0")] == ["2", "0"]
    one = host(MIG, "MIG-aaaaaaaa-0000-5000-8000-000000000002")
    assert [gpu.token for gpu in one] == ["MIG-aaaaaaaa-0000-5000-8000-000000000002"]


def test_a_gpu_named_twice_is_refused() -> None:
    for mask in ("0,1,0", "0,GPU-0a"):
        with pytest.raises(Refusal, match="named twice"):
            host(FOUR, mask)


def chosen(device: str, workers: int | None, text: str | None = FOUR, **more: int) -> list[str]:
    config = ClusterConfig(device=device, workers=workers, **more)  # type: ignore[arg-type]
    found = choose_devices(config, 6, find=lambda: host(text), cuda_works=lambda: True)
    return [gpu.token[:6] or gpu.kind for gpu in found]


def test_one_worker_per_gpu() -> None:
    assert chosen("auto", None) == ["GPU-0a", "GPU-0b", "GPU-0c", "GPU-0d"]
    assert chosen("cuda", 2) == ["GPU-0a", "GPU-0b"]
    assert chosen("auto", None, None) == ["cpu"] * 6
    assert chosen("auto", 3, None) == ["cpu"] * 3


def test_cpu_workers_are_added_to_those_on_gpus() -> None:
    assert chosen("cuda", 2, cpu_workers=3) == ["GPU-0a", "GPU-0b", "cpu", "cpu", "cpu"]
    assert chosen("auto", None, None, cpu_workers=3) == ["cpu"] * 6  # all are on the CPU


def test_device_cpu_looks_for_no_gpu() -> None:
    def never() -> tuple[Device, ...]:
        raise AssertionError("GPUs were looked for")

    assert choose_devices(ClusterConfig(device="cpu", workers=2), 6, find=never) == (CPU, CPU)
    assert CPU.environment == {"CUDA_VISIBLE_DEVICES": ""}  # and no GPU is visible


def test_fewer_gpus_than_workers_is_refused_with_both_numbers() -> None:
    with pytest.raises(Refusal, match=r"(?s)wanted: 5 GPUs.*found: 4: GPU-0a.*--workers 4"):
        chosen("auto", 5)
    with pytest.raises(Refusal, match="wanted: 5 GPUs"):
        chosen("cuda", 5)


def test_gpus_are_shared_only_on_request() -> None:
    assert chosen("cuda", 6, share_gpu=True) == [
        *("GPU-0a", "GPU-0b", "GPU-0c", "GPU-0d"),
        *("GPU-0a", "GPU-0b"),
    ]


def test_missing_cuda_is_refused() -> None:
    with pytest.raises(Refusal, match="no GPU is visible"):
        chosen("cuda", None, None)
    with pytest.raises(Refusal, match="no such device"):
        chosen("tpu", None)
    with pytest.raises(Refusal, match="a run needs workers"):
        chosen("cpu", 0)


def test_gpus_that_torch_cannot_use() -> None:
    def pick(device: str) -> tuple[Device, ...]:
        config = ClusterConfig(device=device)
        return choose_devices(config, 2, find=lambda: host(FOUR), cuda_works=lambda: False)

    assert pick("auto") == (CPU, CPU)
    with pytest.raises(Refusal, match=r"(?s)has no CUDA.*4 GPUs"):
        pick("cuda")


def test_a_gpu_is_claimed_once(tmp_path: Path) -> None:
    first, second = host(FOUR)[:2]
    one = claim([first, second], folder=tmp_path)
    two = claim([first, second], folder=tmp_path)
    assert (one.device, two.device) == (first, second)
    with pytest.raises(WorkerError, match=rf"(?s)taken by another.*process {os.getpid()} on"):
        claim([first, second], folder=tmp_path)
    assert claim([first], share=True, folder=tmp_path).device == first
    assert claim([CPU], folder=tmp_path).device == CPU
    one.release()
    one.release()
    assert claim([first, second], folder=tmp_path).device == first


def test_a_claim_ends_with_its_process(tmp_path: Path) -> None:
    gpu = host(FOUR)[0]
    holder = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "import sys; from pathlib import Path; from catalogproc.cluster import gpu_claim as d\n"
            f"c = d.claim([d.Device('cuda', '0', {gpu.uuid!r})], folder=Path({str(tmp_path)!r}))\n"
            "print('held', flush=True); sys.stdin.read()",
        ],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    with holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        with pytest.raises(WorkerError, match=f"process {holder.pid} on"):
            claim([gpu], folder=tmp_path)
        holder.send_signal(signal.SIGKILL)
        holder.wait()
    claim([gpu], folder=tmp_path).release()


def test_the_gpu_that_cuda_reports_is_claimed_too(tmp_path: Path) -> None:
    # A number in CUDA_VISIBLE_DEVICES may mean another GPU to CUDA than to nvidia-smi.
    guessed, actual = host(FOUR)[:2]
    taken = claim([actual], folder=tmp_path)
    held = claim([guessed], folder=tmp_path)
    with pytest.raises(WorkerError, match="taken by another"):
        held.confirm(actual, tmp_path)
    taken.release()
    held = held.confirm(actual, tmp_path)
    assert held.device == actual
    with pytest.raises(WorkerError, match="taken by another"):
        claim([guessed, actual], folder=tmp_path)
    held.release()
    assert claim([guessed], folder=tmp_path).device == guessed


class _Cuda:
    """torch.cuda on a host; it shows the GPUs in the order of CUDA_VISIBLE_DEVICES."""

    def __init__(self, initialized: bool = False) -> None:
        self.initialized = initialized

    def is_initialized(self) -> bool:
        return self.initialized

    def device_count(self) -> int:
        return 0

    def set_device(self, index: int) -> None:
        self.initialized = True

    def get_device_properties(self, index: int) -> object:
        token = os.environ["CUDA_VISIBLE_DEVICES"].split(",")[index]
        (gpu,) = (gpu for gpu in host(FOUR) if gpu.uuid.startswith(token))
        uuid = gpu.uuid.removeprefix("GPU-")  # as torch returns it
        return type("Properties", (), {"uuid": uuid, "name": gpu.name})()


def on_a_host_with_gpus(monkeypatch: pytest.MonkeyPatch, cuda: _Cuda, mask: str | None) -> None:
    import torch

    monkeypatch.setattr(torch, "cuda", cuda)
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.setattr(gpu_claim, "discover", lambda: host(FOUR, mask))
    if mask is None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")  # monkeypatch then undoes what pin sets
    else:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", mask)


def test_pin_restricts_the_process_to_the_first_free_gpu(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    on_a_host_with_gpus(monkeypatch, _Cuda(), None)
    other = claim(host(FOUR)[:1], folder=tmp_path)
    held = pin("auto", folder=tmp_path)
    assert held.device.label == host(FOUR)[1].label
    assert os.environ["CUDA_VISIBLE_DEVICES"] == host(FOUR)[1].uuid
    other.release()
    held.release()


def test_pin_takes_the_one_gpu_that_the_launcher_gave(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    on_a_host_with_gpus(monkeypatch, _Cuda(initialized=True), "GPU-0d")
    held = pin("cuda", folder=tmp_path)
    assert held.device.uuid == host(FOUR)[3].uuid
    with pytest.raises(WorkerError, match="taken by another"):
        pin("cuda", folder=tmp_path)
    assert pin("cuda", share=True, folder=tmp_path).device.uuid == host(FOUR)[3].uuid


def test_pin_cannot_restrict_a_process_that_uses_cuda(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    on_a_host_with_gpus(monkeypatch, _Cuda(initialized=True), "GPU-0d,GPU-0a")
    with pytest.raises(WorkerError, match="already in use in this process"):
        pin("cuda", folder=tmp_path)


def test_a_worker_whose_gpu_is_gone_does_not_use_the_cpu(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    on_a_host_with_gpus(monkeypatch, _Cuda(), "GPU-0d")
    monkeypatch.setattr(gpu_claim, "discover", lambda: ())
    with pytest.raises(WorkerError, match=r"(?s)sees no GPU.*CUDA_VISIBLE_DEVICES=GPU-0d"):
        pin("auto")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert pin("auto").device == CPU  # it was given none


@pytest.mark.parametrize(
    ("error", "device", "computes", "failed"),
    [
        (torch.AcceleratorError("an illegal memory access"), "GPU-0a", True, True),
        (torch.AcceleratorError("an illegal memory access"), "cpu", True, True),
        (RuntimeError("CUBLAS_STATUS_EXECUTION_FAILED"), "GPU-0a", False, True),
        (RuntimeError("shapes do not fit"), "GPU-0a", True, False),
        (RuntimeError("shapes do not fit"), "cpu", False, False),
        (torch.OutOfMemoryError("out of memory"), "GPU-0a", False, False),
    ],
)
def test_which_errors_mean_that_the_gpu_failed(
    error: RuntimeError,
    device: str,
    computes: bool,
    failed: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "_computes", lambda: computes)
    found = device_error(error, device)
    assert (found is not None) is failed
    if found is not None:
        assert (found.found, found.where) == (str(error), device)


def test_pin_without_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu_claim, "discover", lambda: ())
    assert pin("cpu").device == CPU
    assert pin("auto").device == CPU
    with pytest.raises(WorkerError, match="sees no GPU"):
        pin("cuda")
