"""Count what makes code easy or hard to find one's way in; `python tests/support/structure.py`.

What is counted, over catalogproc/:

files, lines, folders   Python files; their lines; folders that hold any
deepest path            folders between the repository and a file
largest folder          share of all lines that stand in one folder of the package
long functions          functions of more than LONG lines
wide functions          functions of more than WIDE parameters, outside cli/
sectioned               share of the public functions with parameters whose docstring has a
                        section "Parameters"
dependencies            what `pip install catalogproc` asks for
"""

from __future__ import annotations

import ast
import sys
import tomllib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

LONG = 50
WIDE = 5

Function = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True)
class Structure:
    """The counts of one checkout; the tuples hold ``path:name`` of each function counted."""

    files: int
    lines: int
    folders: int
    deepest: int
    largest: tuple[str, float]
    long: tuple[str, ...]
    wide: tuple[str, ...]
    sectioned: tuple[str, ...]
    plain: tuple[str, ...]
    dependencies: int

    @property
    def share_sectioned(self) -> float:
        """Share of public functions with parameters that describe them."""
        return len(self.sectioned) / max(1, len(self.sectioned) + len(self.plain))


def measure(root: Path) -> Structure:
    """Count over the package in a checkout.

    Parameters
    ----------
    root
        The folder that holds pyproject.toml and catalogproc/.
    """
    paths = sorted((root / "catalogproc").rglob("*.py"))
    by_folder: Counter[str] = Counter()
    long, wide, sectioned, plain = [], [], [], []
    lines = 0
    for path in paths:
        text = path.read_text()
        place = path.relative_to(root)
        lines += text.count("\n")
        by_folder[place.parts[1] if len(place.parts) > 2 else "."] += text.count("\n")
        for qualified, function in _functions(ast.parse(text)):
            name = f"{place}:{qualified}"
            if (function.end_lineno or 0) - function.lineno + 1 > LONG:
                long.append(name)
            count = len(_parameters(function))
            if count > WIDE and place.parts[1] not in ("cli", "cli.py") and not (
                place.name.startswith("cli_")
            ):  # fmt: skip
                wide.append(name)
            if count and not any(part.startswith("_") for part in qualified.split(".")):
                described = "Parameters\n" in (ast.get_docstring(function) or "")
                (sectioned if described else plain).append(name)
    project = tomllib.loads((root / "pyproject.toml").read_text())["project"]
    folder, most = by_folder.most_common(1)[0]
    return Structure(
        files=len(paths),
        lines=lines,
        folders=len({path.parent for path in paths}),
        deepest=max(len(path.relative_to(root).parts) - 1 for path in paths),
        largest=(folder, most / lines),
        long=tuple(long),
        wide=tuple(wide),
        sectioned=tuple(sectioned),
        plain=tuple(plain),
        dependencies=len(project["dependencies"]),
    )


def _functions(tree: ast.Module) -> Iterator[tuple[str, Function]]:
    """Functions and methods with their qualified names; functions inside functions are private."""

    def walk(node: ast.AST, prefix: str) -> Iterator[tuple[str, Function]]:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef):
                yield prefix + child.name, child
                yield from walk(child, f"{prefix}{child.name}._.")
            elif isinstance(child, ast.ClassDef):
                yield from walk(child, f"{prefix}{child.name}.")
            else:
                yield from walk(child, prefix)

    return walk(tree, "")


def _parameters(function: Function) -> list[str]:
    given = function.args
    names = [a.arg for a in (*given.posonlyargs, *given.args, *given.kwonlyargs)]
    names += [a.arg for a in (given.vararg, given.kwarg) if a is not None]
    return [name for name in names if name not in ("self", "cls")]


def main() -> None:
    """Print the counts, and with --list the functions by file."""
    words = [word for word in sys.argv[1:] if not word.startswith("--")]
    found = measure(Path(words[0]) if words else Path(__file__).resolve().parents[2])
    print(f"files {found.files}, lines {found.lines:,}, folders {found.folders}")
    print(f"deepest path {found.deepest}, largest folder {found.largest[0]} {found.largest[1]:.0%}")
    print(f"functions over {LONG} lines {len(found.long)}")
    print(f"functions with more than {WIDE} parameters outside cli {len(found.wide)}")
    counted = len(found.sectioned + found.plain)
    print(f"sectioned docstrings {found.share_sectioned:.0%} of {counted}")
    print(f"dependencies {found.dependencies}")
    if "--list" in sys.argv:
        for title, names in (("long", found.long), ("wide", found.wide), ("plain", found.plain)):
            print(f"\n{title}:", *names, sep="\n  ")


if __name__ == "__main__":
    main()
