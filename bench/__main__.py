"""`make bench`; `python -m bench --help` lists the options."""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path

from rich.console import Console

from bench.bench import FAMILIES, markdown, run, tables, write
from bench.kit import TINY, Kit, Sizes
from bench.machine import ROOT


def main() -> None:
    parser = argparse.ArgumentParser(prog="bench", description="How fast catalogproc is here.")
    parser.add_argument("--rows", default="", help=f"some of {','.join(FAMILIES)}")
    parser.add_argument("--model", default="", help="a bundle; full size by default")
    parser.add_argument("--json", type=Path, default=ROOT / "bench.json", help="where to write")
    parser.add_argument("--read", type=Path, help="show this bench.json instead of measuring")
    parser.add_argument("--markdown", action="store_true", help="print Markdown")
    parser.add_argument("--tiny", action="store_true", help="to try the bench, not the machine")
    given = parser.parse_args()
    # To a file or a pipe the table goes as wide as it is.
    console = Console() if Console().is_terminal else Console(width=160)
    if given.read:
        report = json.loads(given.read.read_text(encoding="utf-8"))
    else:
        families = given.rows.replace(",", " ").split() or FAMILIES
        with tempfile.TemporaryDirectory(prefix="bench-") as folder:
            kit = Kit(Path(folder), given.model, TINY if given.tiny else Sizes())
            report = run(families, kit, Console(stderr=True))
        write(report, given.json)
    if given.markdown:
        print(markdown(report))
        return
    for table in tables(report):
        console.print(table)
    for where, what in report["cost"]["bottleneck"].items():
        console.print(f"{where}: {what}", highlight=False)


if __name__ == "__main__":
    main()
