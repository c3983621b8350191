"""One uninterrupted run, with which the others are compared."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from urllib.request import urlopen

import dask
import pytest
from distributed import LocalCluster
from support.bucket import KEY, PYTHON, Bucket
from support.bundles import tiny_bundle
from support.fault_injection import FaultInjection
from support.runs import SECRET, WORKERS, Kit, Uninterrupted

from catalogproc.cluster import run as run_module
from catalogproc.cluster.dask_cluster import _SETTINGS, cores
from catalogproc.cluster.result import RunResult
from catalogproc.cluster.spec import ClusterConfig
from catalogproc.errors import Refusal
from catalogproc.io.staging import STAGE
from catalogproc.rundir.status import status


@pytest.fixture(scope="session")
def kit(tmp_path_factory: pytest.TempPathFactory) -> Kit:
    folder = tmp_path_factory.mktemp("kit")
    return Kit.written(folder, tiny_bundle(folder / "bundle").path)


@pytest.fixture(scope="session")
def uninterrupted(kit: Kit, tmp_path_factory: pytest.TempPathFactory) -> Uninterrupted:
    output = tmp_path_factory.mktemp("uninterrupted") / "catalog"
    lines: list[str] = []
    reports: list[tuple[int, int | None, str]] = []
    pages: dict[str, str] = {}
    refusals: list[str] = []
    counted: list[tuple[RunResult, set[str]]] = []

    def then(result: RunResult) -> None:
        counted.append((result, {path.name for path in output.iterdir()}))

    def progress(rows: int, total: int | None, note: str) -> None:
        reports.append((rows, total, note))
        if rows and not pages:
            (link,) = (line.split()[-1] for line in lines if line.startswith("dashboard: "))
            for page in ("status", "metrics"):
                with urlopen(link.replace("/status", f"/{page}"), timeout=20) as answer:
                    pages[page] = answer.read().decode()
            with pytest.raises(Refusal) as caught:
                kit.run(output)
            refusals.append(str(caught.value))
            pages["run status"] = "\n".join(status(output).lines())

    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
        result = kit.run(output, progress=progress, announce=lines.append, then=then)
    return Uninterrupted(output, result, lines, reports, pages, refusals, counted)


@pytest.fixture
def bucket(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bucket]:
    """A local S3 server that the environment names, and an empty folder for copies."""
    if not PYTHON.exists():
        pytest.skip("no S3 server: moto is not installed (make test)")
    served = Bucket(tmp_path / "answers.jsonl")
    served.start()
    for name, value in (
        ("AWS_ENDPOINT_URL", f"http://127.0.0.1:{served.port}"),
        ("AWS_ACCESS_KEY_ID", "a"),
        ("AWS_SECRET_ACCESS_KEY", KEY),
        ("AWS_DEFAULT_REGION", "us-east-1"),
        (STAGE, str(tmp_path / "stage")),
    ):
        monkeypatch.setenv(name, value)
    yield served
    served.stop()


@pytest.fixture(scope="module")
def existing_cluster() -> Iterator[ClusterConfig]:
    """An existing cluster, for the runs with faults one after the other."""
    with (
        dask.config.set(_SETTINGS),
        LocalCluster(
            n_workers=WORKERS,
            threads_per_worker=max(1, cores() // WORKERS),
            memory_limit="1.5GiB",
            dashboard_address="127.0.0.1:0",
            silence_logs=logging.CRITICAL,
        ) as cluster,
    ):
        yield ClusterConfig(scheduler=cluster.scheduler_address, device="cpu")


@pytest.fixture
def inject(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[[Mapping[str, tuple[str, int]]], FaultInjection]:
    """Inject faults into chunks, by their identifiers, of the runs that the test makes."""

    def put(faults: Mapping[str, tuple[str, int]]) -> FaultInjection:
        tries = tmp_path / "tries"
        tries.mkdir()
        injection = FaultInjection(dict(faults), tries)
        monkeypatch.setattr(run_module, "process_on_worker", injection)
        return injection

    return put
