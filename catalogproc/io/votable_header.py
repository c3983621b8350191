"""A table contract as VOTable XML: FIELDs, INFOs and COOSYS, without rows.

VOTable 1.4 (IVOA Recommendation 2019); used by VOTable files and by the metadata of VOParquet.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from xml.etree import ElementTree

from catalogproc.contract import Column, Contract

NAMESPACE = "http://www.ivoa.net/xml/VOTable/v1.3"


_DATATYPES = {
    "int64": "long",
    "int32": "int",
    "int16": "short",
    "float64": "double",
    "float32": "float",
    "bool": "boolean",
    "string": "char",
    "list<float32>": "float",
    "list<float64>": "double",
}


EPOCH = "release_epoch"
"""Name of the INFO, and of a file's metadata, that holds the reference epoch of positions."""

_POSITION = ("pos.eq.ra", "pos.eq.dec")


_ARXIV = re.compile(r"arXiv:(\d{4}\.\d{4,5})")


def dataless_votable(
    contract: Contract, widths: Mapping[str, int], infos: Mapping[str, str] | None = None
) -> str:
    """Return a VOTable document (XML) that describes a contract's columns, without rows.

    VOParquet stores it in a Parquet file's metadata.

    Parameters
    ----------
    contract
        The table contract.
    widths
        Number of characters of each string column.
    infos
        Metadata of the file, for the epoch of its positions (``release_epoch``).
    """
    known = {EPOCH: infos[EPOCH]} if infos and EPOCH in infos else {}
    head, tail = votable_frame(contract, widths=widths, infos=known)
    return head + tail


def votable_frame(
    contract: Contract,
    *,
    widths: Mapping[str, int],
    infos: Mapping[str, str] | None = None,
    rows: int | None = None,
) -> tuple[str, str]:
    """Return the XML before and after a table's DATA element.

    Parameters
    ----------
    contract
        The table, its FIELDs in order.
    widths
        Characters of each string column.
    infos
        INFO elements of the RESOURCE: provenance, counts, references; ``release_epoch`` is the
        epoch of positions too.
    rows
        The TABLE's nrows, where known.
    """
    columns = contract.columns
    root = ElementTree.Element("VOTABLE", version="1.4", xmlns=NAMESPACE)
    resource = ElementTree.SubElement(root, "RESOURCE", type="results")
    for key, value in (infos or {}).items():
        ElementTree.SubElement(resource, "INFO", name=key, value=value)
    if any(_is_position(column) for column in columns):
        system = ElementTree.SubElement(resource, "COOSYS", ID="ICRS", system="ICRS")
        if infos and EPOCH in infos:
            system.set("epoch", infos[EPOCH])
    for number in _ARXIV.findall((infos or {}).get("references", "")):
        link = f"https://arxiv.org/abs/{number}"
        ElementTree.SubElement(resource, "LINK", {"content-role": "doc", "href": link})
    table = ElementTree.SubElement(resource, "TABLE", name=contract.name)
    if rows is not None:
        table.set("nrows", str(rows))
    ElementTree.SubElement(table, "DESCRIPTION").text = contract.description
    for column in columns:
        table.append(_field(column, widths.get(column.name)))
    ElementTree.indent(root)
    head, close, rest = _text(root).rpartition("</TABLE>")
    return head.rstrip() + "\n", f"    {close}{rest}\n"


def _text(root: ElementTree.Element) -> str:
    body = ElementTree.tostring(root, encoding="unicode")
    return f'<?xml version="1.0" encoding="UTF-8"?>\n{body}'


def _is_position(column: Column) -> bool:
    return column.ucd.split(";")[0] in _POSITION


def _field(column: Column, width: int | None) -> ElementTree.Element:
    field = ElementTree.Element(
        "FIELD", ID=column.name, name=column.name, datatype=_DATATYPES[column.type]
    )
    if column.type == "string":
        field.set("arraysize", "*" if width is None else str(width))
    elif column.type.startswith("list"):
        field.set("arraysize", "*")
    if column.unit:
        field.set("unit", column.unit)
    if column.ucd:
        field.set("ucd", column.ucd)
    if _is_position(column):
        field.set("ref", "ICRS")
    ElementTree.SubElement(field, "DESCRIPTION").text = column.description
    return field
