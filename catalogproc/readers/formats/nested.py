"""Fields of struct columns, as columns of their own.

nested-pandas and LSDB write a star's spectrum so: ``xp.bp_coefficients``.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping

import pyarrow as pa


def nested_fields(fields: Iterable[tuple[str, pa.DataType]]) -> Mapping[str, tuple[str, str]]:
    """Return the fields of struct columns: by their name, or by both where that is taken.

    Parameters
    ----------
    fields
        Names and types of a table's columns.

    Returns
    -------
    dict
        The column and the field in it, by the name under which the field is found.
    """
    columns = list(fields)
    found = [
        (name, kind.field(number).name)
        for name, kind in columns
        if pa.types.is_struct(kind)
        for number in range(kind.num_fields)
    ]
    names = Counter([child for _, child in found] + [name for name, _ in columns])
    return {
        child if names[child] == 1 else f"{column}.{child}": (column, child)
        for column, child in found
    }
