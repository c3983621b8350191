"""One undisturbed run, to which the others are compared."""

from __future__ import annotations

from urllib.request import urlopen

import pytest
from bundles import tiny_bundle
from runs import Kit, Undisturbed

from catalogproc.errors import Refusal


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

    account = kit.run(output, progress=progress, announce=told.append)
    return Undisturbed(output, account, told, reports, pages, refusals)
