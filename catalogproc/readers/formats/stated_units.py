"""The units that a file states for its columns."""

from __future__ import annotations

from xml.parsers import expat

import pyarrow as pa

from catalogproc.readers.formats.nested import nested_fields

_ASTROPY = b"table_meta_yaml"
_VOPARQUET = b"IVOA.VOTable-Parquet.content"


def schema_units(schema: pa.Schema) -> dict[str, str]:
    """Return the units that an Arrow schema states, by column.

    They stand in the fields' metadata (``unit``), in the VOTable header of VOParquet, or in the
    header that astropy writes (``table_meta_yaml``).

    Parameters
    ----------
    schema
        Of a Parquet file, or of a table read from one.

    Raises
    ------
    Exception
        Whatever astropy or expat raise on a header that is damaged.
    """
    stated = dict(schema.metadata or {})
    units: dict[str, str] = {}
    if _ASTROPY in stated:
        units |= yaml_units(stated[_ASTROPY].decode("utf-8", "replace"))
    if _VOPARQUET in stated:
        units |= votable_units(stated[_VOPARQUET])
    fields = {field.name: field for field in schema}
    columns = zip(schema.names, schema.types, strict=True)
    nested = nested_fields(columns).items()
    fields |= {name: fields[column].type.field(child) for name, (column, child) in nested}
    for name, field in fields.items():
        unit = (field.metadata or {}).get(b"unit", b"").decode("utf-8", "replace")
        if unit:
            units[name] = unit
    return units


def yaml_units(header: str) -> dict[str, str]:
    """Return the units that an ECSV header states, by column.

    Parameters
    ----------
    header
        The YAML of the header without its comment signs. astropy writes the same into the
        metadata of Parquet files.

    Raises
    ------
    Exception
        Whatever astropy raises on a header that is damaged.
    """
    if "unit:" not in header:
        return {}
    from astropy.table.meta import get_header_from_yaml

    rows = get_header_from_yaml(header.splitlines()).get("datatype", [])
    return {str(row["name"]): str(row["unit"]) for row in rows if row.get("unit")}


def votable_units(document: bytes) -> dict[str, str]:
    """Return the units of the FIELDs of a VOTable without data, by column.

    Parameters
    ----------
    document
        The XML that VOParquet keeps in a file's metadata.

    Raises
    ------
    ValueError
        The document declares an entity.
    expat.ExpatError
        The document is not XML.
    """
    units: dict[str, str] = {}

    def start(name: str, attributes: dict[str, str]) -> None:
        column = attributes.get("name") or attributes.get("ID")
        if name.rpartition(":")[2] == "FIELD" and column and attributes.get("unit"):
            units[column] = attributes["unit"]

    def entity(name: str, *_: object) -> None:
        raise ValueError(f"a document that declares the entity {name!r}, which no VOTable needs")

    parser = expat.ParserCreate()
    parser.StartElementHandler = start
    parser.EntityDeclHandler = entity
    parser.Parse(document, True)
    return units
