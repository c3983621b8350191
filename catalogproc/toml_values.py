"""Tables of TOML as frozen dataclasses, with an error for each line that is wrong or missing; and
tables as text."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import MISSING, fields
from types import NoneType, UnionType
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

from catalogproc.errors import ReleaseError, did_you_mean

T = TypeVar("T")

HIDDEN = ("folder",)
"""Fields that a file does not state."""


def parsed(kind: type[T], content: Mapping[str, Any], where: object = None) -> T:
    """Return a dataclass from the content of a TOML file.

    Parameters
    ----------
    kind
        The dataclass. Its fields are the file's keys; a field whose type is a dataclass is a
        table, one that is a mapping a table of tables or values.
    content
        The content.
    where
        The file, for messages.

    Raises
    ------
    ReleaseError
        A key is unknown, missing, or of another type.
    """
    return _table(kind, content, "", where)


def merged(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, Any]:
    """Return a declaration with the values of another one in place of its own.

    Parameters
    ----------
    old, new
        Content of TOML; a table keeps the values that the other one does not state.
    """
    result = dict(old)
    for key, value in new.items():
        both = isinstance(value, dict) and isinstance(result.get(key), dict)
        result[key] = merged(result[key], value) if both else value
    return result


def pruned(value: Any) -> Any:
    """Return a declaration without what is not known, tuples as lists.

    Parameters
    ----------
    value
        Tables, lists and values.
    """
    if isinstance(value, dict):
        kept = {key: pruned(item) for key, item in value.items()}
        return {key: item for key, item in kept.items() if item not in (None, {}, [])}
    return [pruned(item) for item in value] if isinstance(value, tuple | list) else value


def toml_text(content: Mapping[str, Any], above: tuple[str, ...] = ()) -> str:
    """Return tables of texts, numbers and lists as TOML.

    Parameters
    ----------
    content
        The content of a TOML file.
    above
        Keys of the tables that it stands in.
    """
    # A text of JSON is one of TOML; so are numbers, and lists of these.
    lines = [
        f"{_key(key)} = {json.dumps(value, ensure_ascii=False)}"
        for key, value in content.items()
        if not isinstance(value, Mapping)
    ]
    if lines and above:
        lines.insert(0, f"\n[{'.'.join(map(_key, above))}]")
    text = "".join(line + "\n" for line in lines)
    tables = {key: value for key, value in content.items() if isinstance(value, Mapping)}
    return text + "".join(toml_text(table, (*above, key)) for key, table in tables.items())


def _key(key: str) -> str:
    plain = key.replace("_", "").replace("-", "")
    return key if plain.isascii() and plain.isalnum() else json.dumps(key, ensure_ascii=False)


def _parsed(kind: Any, value: Any, at: str, where: object) -> Any:
    """Return a value of TOML in the type that a dataclass declares.

    Parameters
    ----------
    kind
        The type.
    value
        The value.
    at
        Its key, with dots.
    where
        The file.
    """
    origin, inner = get_origin(kind), get_args(kind)
    if origin in (Union, UnionType):
        return _parsed(next(item for item in inner if item is not NoneType), value, at, where)
    if hasattr(kind, "__dataclass_fields__") and isinstance(value, dict):
        return _table(kind, value, at, where)
    if origin is not None and issubclass(origin, Mapping) and isinstance(value, dict):
        dotted = f"{at}." if at else ""
        return {key: _parsed(inner[1], item, dotted + key, where) for key, item in value.items()}
    if origin is tuple and isinstance(value, list):
        kinds = inner[:1] * len(value) if inner[1:] == (...,) else inner
        if len(kinds) == len(value):
            return tuple(_parsed(k, item, at, where) for k, item in zip(kinds, value, strict=True))
    elif kind is float and type(value) in (int, float):
        return float(value)
    elif kind in (str, int) and type(value) is kind:
        return value
    word = getattr(kind, "__name__", str(kind)) if origin is None else str(kind)
    word = "a table" if hasattr(kind, "__dataclass_fields__") else word
    raise ReleaseError("a line has a wrong type", wanted=f"{at}: {word}",
                       found=repr(value)[:100], where=where)  # fmt: skip


def _table(kind: type[T], value: Mapping[str, Any], at: str, where: object) -> T:
    """Return a dataclass from a TOML table."""
    hints = get_type_hints(kind)
    known = [item.name for item in fields(kind)]  # type: ignore[arg-type]
    dotted = f"{at}." if at else ""
    shown = [name for name in known if name not in HIDDEN]
    for key in value:
        if key not in known:
            raise ReleaseError(
                "unknown line",
                wanted=", ".join(dotted + name for name in shown), found=dotted + key, where=where,
                advice=did_you_mean(key, shown),
            )  # fmt: skip
    stated = {key: _parsed(hints[key], item, dotted + key, where) for key, item in value.items()}
    try:
        return kind(**stated)
    except TypeError:
        missing = [name for name in known if name not in value and _needed(kind, name)]
        raise ReleaseError(
            "a line is missing",
            wanted=", ".join(f"{dotted}{name} = …" for name in missing),
            where=where,
        ) from None


def _needed(kind: Any, name: str) -> bool:
    """Return whether a dataclass has no default for a field."""
    item = kind.__dataclass_fields__[name]
    return item.default is MISSING and item.default_factory is MISSING
