"""Files that are no table that is read: the message says what they are, and what helps."""

from __future__ import annotations

import io
import pickle
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyarrow import feather, ipc, orc
from support.xp_files import put, real, spectra, votable, zipped

from catalogproc.errors import InputError, JobError
from catalogproc.readers.chunks import expand
from catalogproc.readers.formats import open_table

TABLE = pa.table({"source_id": [1, 2], "ra": [1.0, 2.0]})


def archive(*members: str) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as file:
        for name in members:
            file.writestr(name, b"12345")
    return out.getvalue()


def buffered(write) -> bytes:  # type: ignore[no-untyped-def]
    out = io.BytesIO()
    write(out)
    return out.getvalue()


def hdf5(out: io.BytesIO) -> None:
    h5py = pytest.importorskip("h5py")
    with h5py.File(out, "w") as file:
        file["a"] = np.arange(3)


def avro(out: io.BytesIO) -> None:
    fastavro = pytest.importorskip("fastavro")
    field = {"name": "a", "type": "long"}
    fastavro.writer(out, {"type": "record", "name": "r", "fields": [field]}, [{"a": 1}])


def stream(out: io.BytesIO) -> None:
    with ipc.new_stream(out, TABLE.schema) as writer:
        writer.write_table(TABLE)


def tar(out: io.BytesIO) -> None:
    with tarfile.open(fileobj=out, mode="w") as file:
        file.addfile(tarfile.TarInfo("a.csv"))


FILES = {
    "HDF5": (lambda: buffered(hdf5), "HDF5", "read_hdf"),
    "Avro": (lambda: buffered(avro), "Avro", "write it as Parquet"),
    "Feather": (lambda: buffered(lambda out: feather.write_feather(TABLE, out)), "Feather",
                "read_table"),
    "Arrow stream": (lambda: buffered(stream), "Arrow IPC stream", "open_stream"),
    "ORC": (lambda: buffered(lambda out: orc.write_table(TABLE, out)), "ORC", "read_table"),
    "pickle": (lambda: pickle.dumps({"a": 1}), "a pickle", "none is opened here"),
    "old pickle": (lambda: pickle.dumps({"a": 1}, protocol=2), "a pickle", "none is opened here"),
    "npz": (lambda: buffered(lambda out: np.savez(out, a=np.arange(3))), "(.npz)", "named columns"),
    "npy": (lambda: buffered(lambda out: np.save(out, np.arange(3))), "(.npy)", "named columns"),
    "xlsx": (lambda: archive("[Content_Types].xml", "xl/workbook.xml"), "Excel", "15 digits"),
    "xls": (lambda: bytes.fromhex("d0cf11e0a1b11ae1") + bytes(99), "Excel", "15 digits"),
    "zip": (lambda: archive("a.csv"), "a ZIP archive", "the ending .zip"),
    "tar": (lambda: buffered(tar), "a tar archive", "unpack it"),
    "json": (lambda: b'{"metadata": [], "data": []}', "JSON", "DataLink"),
    "json rows": (lambda: b'[{"source_id": 1}]', "JSON", "DataLink"),
    "web page": (lambda: b"\n<!DOCTYPE html><html><h1>503</h1></html>", "a web page", "error page"),
    "LFS": (lambda: b"version https://git-lfs.github.com/spec/v1\noid sha256:4\nsize 3\n",
            "Git LFS", "git lfs pull"),
    "UTF-16": (lambda: "source_id,ra\n1,2\n".encode("utf-16"), "UTF-16", "UTF-8"),
    "bytes": (lambda: bytes(range(256)), "no known format", "Parquet or FITS"),
}  # fmt: skip


@pytest.mark.parametrize("kind", FILES)
@pytest.mark.parametrize("name", ["stars.parquet", "stars.csv", "stars.fits", "stars.xml", "stars"])
def test_what_a_file_is_and_what_helps(kind: str, name: str, tmp_path: Path) -> None:
    content, found, advice = FILES[kind]
    with pytest.raises(InputError) as caught:
        open_table(put(tmp_path, name, content()))
    assert found in str(caught.value.found)
    assert advice in (caught.value.advice or "")


@pytest.mark.parametrize("name", ["a.csv", "a.parquet", "a.fits.gz", "a"])
def test_an_empty_file_is_to_be_fetched_again(name: str, tmp_path: Path) -> None:
    for content in (b"", zipped(b"")):
        with pytest.raises(InputError) as caught:
            open_table(put(tmp_path, name, content))
        assert "fetch the file again" in (caught.value.advice or "")


def test_parquet_in_gzip_is_to_be_decompressed(tmp_path: Path) -> None:
    content = zipped(buffered(lambda out: pq.write_table(TABLE, out)))
    with pytest.raises(InputError, match="gunzip"):
        open_table(put(tmp_path, "a.parquet.gz", content))


def test_xml_that_is_no_table(tmp_path: Path) -> None:
    """What archives answer in place of a table, and tables that lie elsewhere."""
    said = (
        b'<?xml version="1.0"?><VOTABLE><RESOURCE type="results"><INFO name="QUERY_STATUS" '
        b'value="ERROR">Column xp_continuos\n does not exist</INFO></RESOURCE></VOTABLE>'
    )
    with pytest.raises(InputError, match="ERROR: Column xp_continuos does not exist"):
        open_table(put(tmp_path, "a.xml", said))
    denied = b'<?xml version="1.0"?><Error><Code>AccessDenied</Code></Error>'
    with pytest.raises(InputError, match=r"found: Error(.|\n)*message of a server"):
        open_table(put(tmp_path, "a.xml", denied))


def test_a_votable_that_holds_or_names_fits(tmp_path: Path) -> None:
    plain = votable(real(2).to_pylist(), "BINARY2").decode()
    begin, end = plain.index("<BINARY2>"), plain.index("</DATA>")
    for body, advice in (
        ('<FITS extnum="1"><STREAM encoding="base64">U0lNUExF</STREAM></FITS>', "stilts tcopy"),
        ('<FITS><STREAM href="stars.fits"/></FITS>', "give the FITS file itself: stars.fits"),
        ('<BINARY2><STREAM href="http://a.b/c.bin"/></BINARY2>', "with its data inside"),
    ):
        content = (plain[:begin] + body + plain[end:]).encode()
        with pytest.raises(InputError) as caught:
            spectra(put(tmp_path, "a.vot", content))
        assert advice in (caught.value.advice or "")


@pytest.mark.parametrize(
    ("members", "advice"),
    [(("a.zip", "b.zip"), "unpack it"), (("MEAN_SPECTRUM_XP.json",), "votable, ecsv, csv or fits"),
     (("notes.txt",), None)],
)  # fmt: skip
def test_archives_without_a_table(
    members: tuple[str, ...], advice: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CATALOGPROC_STAGE", str(tmp_path / "stage"))
    with pytest.raises(JobError, match="holds no file that can be read") as caught:
        expand([put(tmp_path, "datalink.zip", archive(*members))])
    assert (advice or "") in (caught.value.advice or "")


def test_what_a_folder_holds_besides_is_named(tmp_path: Path) -> None:
    put(tmp_path, "stars.npz", buffered(lambda out: np.savez(out, a=np.arange(3))))
    (tmp_path / "more").mkdir()
    with pytest.raises(JobError, match=r"more/, stars.npz(.|\n)*\(.npz\): write a table"):
        expand([tmp_path])
    path = put(tmp_path, "stars.csv", b"source_id\n1\n")
    told: list[str] = []
    assert expand([tmp_path], told.append) == [path]
    assert told == [f"{tmp_path}: 1 of 3 files read; not read: more/, stars.npz"]
