"""A part of a description: a title with a text and a table, for people, JSON and Markdown."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

ALSO = "also read as"
"""A column whose cells are names, separated by commas."""


@dataclass(frozen=True)
class Section:
    """A title with a text and a table, either of which may be empty."""

    title: str
    text: str = ""
    header: tuple[str, ...] = ()
    rows: tuple[tuple[str, ...], ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return the fields for JSON."""
        return asdict(self)

    def markdown(self) -> str:
        """Return the section as Markdown, with the names in the table as code."""
        lines = [f"# {self.title}", "", self.text]
        if self.rows:
            lines += ["", f"| {' | '.join(self.header)} |", "|---" * len(self.header) + "|"]
            for row in self.rows:
                cells = [cell.replace("|", "\\|") or "-" for cell in row]
                first = self.header.index("name") if "name" in self.header else 0
                cells[first] = f"`{cells[first]}`"
                if ALSO in self.header:
                    also = self.header.index(ALSO)
                    names = [f"`{name}`" for name in row[also].split(", ") if name]
                    cells[also] = ", ".join(names) or "-"
                lines.append(f"| {' | '.join(cells)} |")
        return "\n".join([*lines, ""])
