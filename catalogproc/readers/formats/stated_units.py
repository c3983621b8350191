"""The units that a file states for its columns."""

from __future__ import annotations

from xml.parsers import expat


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
