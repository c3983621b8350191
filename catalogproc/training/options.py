"""Tables of a training job, read strictly."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any, Self

from catalogproc.errors import JobError


class Options:
    """A table of a training job, read strictly."""

    TABLE = ""

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> Self:
        """Raises JobError for a field that the table does not have, or of the wrong kind."""
        known = {item.name: item.default for item in fields(cls)}  # type: ignore[arg-type]
        for name, value in content.items():
            if name not in known:
                raise JobError("unknown field", wanted=", ".join(known), found=name,
                               where=f"[{cls.TABLE}]")  # fmt: skip
            wanted = (int, float) if isinstance(known[name], float) else type(known[name])
            if isinstance(value, bool) != isinstance(known[name], bool) or not isinstance(
                value, wanted
            ):
                raise JobError("wrong type", wanted=repr(known[name]), found=repr(value),
                               where=f"[{cls.TABLE}], {name}")  # fmt: skip
        return cls(**content)
