"""A run of many simulated giants: counts, speed and memory, for a section of docs/performance.md.

`python -m bench.million --stars N --output FOLDER` leaves run.log and section.md in the folder;
``--page`` puts both into docs/.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from threading import Event, Thread

from bench.gpu_page import replace_section
from bench.machine import ROOT
from bench.measure import cores
from bench.run import family_memory
from catalogproc.errors import plural
from catalogproc.io.atomic import write_atomic

TITLE = "## A million stars"
PAGE, LOG = ROOT / "docs" / "performance.md", ROOT / "docs" / "bench" / "million-stars.log"


def run(stars: int, output: Path) -> str:
    """Simulate stars, make their catalog, and return the section.

    Parameters
    ----------
    stars
        Number of stars.
    output
        A folder, which is emptied; the log names it as it is given.

    Raises
    ------
    CalledProcessError
        A command failed; it has printed why.
    """
    shutil.rmtree(output, ignore_errors=True)
    output.mkdir(parents=True)
    begin = [sys.executable, "-m", "catalogproc"]
    drawn = ["simulate", "--stars", str(stars), "--seed", "1", "--output", str(output / "stars")]
    subprocess.run([*begin, *drawn], cwd=ROOT, check=True)
    load = os.getloadavg()[0]
    words = ["run", "--input", str(output / "stars" / "xp_continuous*.parquet")]
    words += ["--gaia-source", str(output / "stars" / "gaia_source*.parquet")]
    words += ["--output", str(output / "catalog")]
    memory = _logged([*begin, *words], output / "run.log")
    text = section(output / "catalog", memory, load)
    write_atomic(output / "section.md", text.encode())
    return text


def section(catalog: Path, memory: int, load: float) -> str:
    """Return the section of the page.

    Parameters
    ----------
    catalog
        The run's folder.
    memory
        Peak memory of a worker, bytes.
    load
        Of the machine, before the run.
    """
    summary = json.loads((catalog / "summary.json").read_text())
    run = json.loads((catalog / "run.json").read_text())
    receipts = [json.loads(path.read_text()) for path in (catalog / "receipts").glob("[!.]*")]
    workers = len({receipt["worker"] for receipt in receipts})
    busy = sum(sum(receipt["stage_seconds"].values()) for receipt in receipts)
    predict = sum(receipt["stage_seconds"]["predict"] for receipt in receipts)
    read, seconds = summary["rows_read"], summary["seconds"]
    return (
        f"{TITLE}\n\n"
        "`make million`: simulated giants with a gaia_source table, and a run with the default\n"
        f"job. [The log](bench/{LOG.name}), {datetime.now(UTC):%Y-%m-%d}, model "
        f"{run['model']['name']}, {plural(workers, 'worker')} on {cores()} cores, load before "
        f"the run {load:.1f}:\n"
        f"{read:,} read, {summary['rows_written']:,} written, {summary['rows_rejected']:,} "
        f"rejected, in {seconds:,.0f} s ({read / seconds:,.0f} stars/s);\n"
        f"the network took {100 * predict / busy:.0f} % of the workers' time, and a worker at most "
        f"{memory / 1e9:.1f} GB.\n"
    )


def _logged(words: list[str], log: Path) -> int:
    """Run a command, print and keep its output, and return its largest child's peak memory."""
    peak, ended = [0], Event()
    process = subprocess.Popen(
        words, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )

    def watch() -> None:
        while not ended.wait(0.25):
            peak[0] = max(peak[0], *family_memory(process.pid)[1:], 0)

    watcher = Thread(target=watch)
    watcher.start()
    try:
        with log.open("w", encoding="utf-8") as file:
            for line in process.stdout or ():
                print(line, end="", flush=True)
                file.write(line.replace(f"{ROOT}/", ""))  # no folder of this machine
    finally:
        ended.set()
        watcher.join()
    if process.wait():
        raise subprocess.CalledProcessError(process.returncode, words)
    return peak[0]


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--stars", type=int, default=1_000_000)
    parser.add_argument("--output", type=Path, default=Path("output/million"))
    parser.add_argument("--page", action="store_true", help="put section and log into docs/")
    given = parser.parse_args()
    made = run(given.stars, given.output)
    print(made)
    if given.page:
        replace_section(PAGE, made)
        shutil.copyfile(given.output / "run.log", LOG)
