"""Comparison of two bench.json: python -m bench.compare OLD.json NEW.json"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table


def compare(old: dict[str, Any], new: dict[str, Any]) -> Table:
    """Return a table of both figures of each row and their ratio; its title compares processors.

    Parameters
    ----------
    old, new
        Contents of two bench.json.
    """
    same = old["machine"]["cpu"] == new["machine"]["cpu"]
    titles = [f"{report['date'][:10]} {report['commit']}" for report in (old, new)]
    table = Table(title="the same processor" if same else "different processors")
    for name, justify in (("row", "left"), (titles[0], "right"), (titles[1], "right")):
        table.add_column(name, justify=justify)  # type: ignore[arg-type]
    table.add_column("new / old", justify="right")
    table.add_column("unit")
    before = {(row["family"], row["row"]): row["value"] for row in old["rows"]}
    for row in new["rows"]:
        earlier, now = before.get((row["family"], row["row"])), row["value"]
        ratio = f"{now / earlier:.3f}" if earlier and now is not None else ""
        figures = ["" if value is None else f"{value:,.4g}" for value in (earlier, now)]
        table.add_row(f"{row['title']}: {row['row']}", *figures, ratio, row["unit"])
    return table


def main(one: str, other: str) -> None:
    old, new = (json.loads(Path(path).read_text(encoding="utf-8")) for path in (one, other))
    Console().print(compare(old, new))


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    main(*sys.argv[1:])
