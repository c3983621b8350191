"""One undisturbed run, to which the others are compared."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from urllib.request import urlopen

import dask
import pytest
from distributed import LocalCluster
from support.bundles import tiny_bundle
from support.fault_injection import Sabotage
from support.runs import SECRET, WORKERS, Kit, Undisturbed

from catalogproc.cluster import run as run_module
from catalogproc.cluster.dask_cluster import _SETTINGS, Where, cores
from catalogproc.cluster.scheduler import Dispatch
from catalogproc.errors import Refusal
from catalogproc.rundir.status import status


@pytest.fixture(scope="session")
def kit(tmp_path_factory: pytest.TempPathFactory) -> Kit:
    folder = tmp_path_factory.mktemp("kit")
    return Kit.laid_out(folder, tiny_bundle(folder / "bundle").path)


@pytest.fixture(scope="session")
def undisturbed(kit: Kit, tmp_path_factory: pytest.TempPathFactory) -> Undisturbed:
    output = tmp_path_factory.mktemp("undisturbed") / "catalog"
    told: list[str] = []
    reports: list[tuple[int, int | None, str]] = []
    pages: dict[str, str] = {}
    refusals: list[str] = []

    def progress(rows: int, total: int | None, note: str) -> None:
        reports.append((rows, total, note))
        if rows and not pages:
            (link,) = (line.split()[-1] for line in told if line.startswith("dashboard: "))
            for page in ("status", "metrics"):
                with urlopen(link.replace("/status", f"/{page}"), timeout=20) as answer:
                    pages[page] = answer.read().decode()
            with pytest.raises(Refusal) as caught:
                kit.run(output)
            refusals.append(str(caught.value))
            pages["how it stands"] = "\n".join(status(output).lines())

    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
        account = kit.run(output, progress=progress, announce=told.append)
    return Undisturbed(output, account, told, reports, pages, refusals)


@pytest.fixture(scope="module")
def crowd() -> Iterator[Where]:
    """A cluster that stands, for the runs that are disturbed one after the other."""
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
        yield Where(scheduler=cluster.scheduler_address, device="cpu")


@pytest.fixture
def sabotaged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[[Mapping[str, tuple[str, int]]], Sabotage]:
    """Puts faults in the way of chunks, by their names, of the runs that the test makes."""

    def put(faults: Mapping[str, tuple[str, int]]) -> Sabotage:
        diary = tmp_path / "diary"
        diary.mkdir()
        made = Sabotage(dict(faults), diary)
        monkeypatch.setattr(run_module, "Dispatch", partial(Dispatch, do=made))
        return made

    return put
