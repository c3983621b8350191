"""Files of schemas/ as they are declared: TOML with tables of rows, each a dataclass."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from catalogproc.errors import ContractError


def read_declaration(path: Path) -> dict[str, Any]:
    """Read a TOML file of schemas/.

    Parameters
    ----------
    path
        The file.

    Raises
    ------
    ContractError
        The file is not TOML.
    """
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, OSError, RecursionError) as error:
        raise ContractError("a declaration cannot be read", found=error, where=path) from None


def declared_tables(declared: Mapping[str, Any], name: str, path: Path) -> list[dict[str, Any]]:
    """Return the [[name]] tables of a declaration.

    Parameters
    ----------
    declared
        Content of the file.
    name
        Name of the tables.
    path
        The file, for messages.

    Raises
    ------
    ContractError
        There are none.
    """
    rows = declared.get(name)
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise ContractError(f"no [[{name}]] tables", found=repr(rows)[:100], where=path)
    return rows


def check_types(declared: Any, path: Path) -> None:
    """Raise ContractError unless each field has the type that its dataclass declares.

    Parameters
    ----------
    declared
        An object of a dataclass, made of one row of a declaration.
    path
        The file, for messages.
    """
    kinds: dict[str, tuple[type, ...]] = {
        "str": (str,), "int": (int,), "bool": (bool,), "tuple[str, ...]": (tuple,),
    }  # fmt: skip
    for item in fields(declared):
        value = getattr(declared, item.name)
        wanted = kinds.get(str(item.type), (int, float, type(None)))
        if type(value) not in wanted:
            raise ContractError(
                "a row is declared wrongly",
                wanted=f"{item.name}: {item.type}", found=repr(value)[:100], where=path,
            )  # fmt: skip
