"""`make bench`; `python -m bench --help` lists the options."""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path

from rich.console import Console

from bench.bench import FAMILIES, markdown, run, tables, write
from bench.kit import BRIEF, TINY, Kit, Sizes
from bench.machine import ROOT


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="bench", description="Benchmark of catalogproc on this machine."
    )
    parser.add_argument("--rows", default="", help=f"families to run, of {','.join(FAMILIES)}")
    parser.add_argument("--model", default="", help="a bundle; by default one of full size")
    parser.add_argument("--json", type=Path, default=ROOT / "bench.json", help="output file")
    parser.add_argument("--read", type=Path, help="show this bench.json instead of measuring")
    parser.add_argument("--markdown", action="store_true", help="print Markdown")
    parser.add_argument(
        "--tiny", action="store_true", help="very small sizes, to test the benchmark itself"
    )
    parser.add_argument("--brief", action="store_true", help="smaller sizes, in a minute")
    options = parser.parse_args()
    # In a file or a pipe the table is not wrapped.
    console = Console() if Console().is_terminal else Console(width=160)
    if options.read:
        report = json.loads(options.read.read_text(encoding="utf-8"))
    else:
        families = options.rows.replace(",", " ").split() or FAMILIES
        with tempfile.TemporaryDirectory(prefix="bench-") as folder:
            sizes = TINY if options.tiny else BRIEF if options.brief else Sizes()
            kit = Kit(Path(folder), options.model, sizes)
            report = run(families, kit, Console(stderr=True))
        write(report, options.json)
    if options.markdown:
        print(markdown(report))
        return
    for table in tables(report):
        console.print(table)
    for setup, limit in report["cost"]["bottleneck"].items():
        console.print(f"{setup}: {limit}", highlight=False)


if __name__ == "__main__":
    main()
