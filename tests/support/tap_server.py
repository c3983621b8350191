"""A local TAP and DataLink service. Queries run in SQLite, which reads the ADQL as it is."""

from __future__ import annotations

import email
import gzip
import io
import math
import re
import sqlite3
import threading
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs

import numpy as np
import pyarrow as pa
from astropy.io.votable import from_table, parse_single_table
from astropy.table import MaskedColumn, Table
from support.xp_files import COLUMNS, csv_bytes

from catalogproc.release import load_release

TEXT = {"phot_variable_flag", "ph_qual", "designation"}
LIMIT = 5000
JOB = (
    '<uws:job xmlns:uws="http://www.ivoa.net/xml/UWS/v1.0" xmlns:xlink="http://www.w3.org/1999/xlink"'
    ' xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance"><uws:jobId>{number}</uws:jobId>'
    '<uws:ownerId xsi:nil="true"/><uws:phase>{phase}</uws:phase><uws:quote xsi:nil="true"/>'
    '<uws:startTime xsi:nil="true"/><uws:endTime xsi:nil="true"/>'
    "<uws:executionDuration>7200</uws:executionDuration>"
    '<uws:destruction xsi:nil="true"/><uws:parameters/>'
    '<uws:results><uws:result id="result" xlink:href="{url}/async/{number}/results/result"/>'
    "</uws:results>{error}</uws:job>"
)
ERROR = (
    '<uws:errorSummary type="fatal" hasDetail="false"><uws:message>{}</uws:message>'
    "</uws:errorSummary>"
)


@dataclass
class LocalServices:
    """Sources in a data base, spectra by source_id, and what is to go wrong."""

    database: sqlite3.Connection
    spectra: dict[int, dict[str, Any]]
    withheld: set[int] = field(default_factory=set)
    answers: list[tuple[int, bytes]] = field(default_factory=list)  # of DataLink, before it works
    tap_faults: list[int] = field(default_factory=list)
    overflow: bool = False
    compressed: bool = False
    asked: list[list[int]] = field(default_factory=list)
    queries: list[str] = field(default_factory=list)
    jobs: dict[str, dict[str, Any]] = field(default_factory=dict)
    deleted: int = 0
    url: str = ""

    @property
    def tap(self) -> str:
        return f"{self.url}/tap-server/tap"

    @property
    def datalink(self) -> str:
        return f"{self.url}/data-server/data"

    def run(self, job: dict[str, Any]) -> None:
        """Run a job as the archive's data base does."""
        cursor = self.database.cursor()
        cursor.execute("DELETE FROM tap_upload.ids")
        for star in job["ids"]:
            cursor.execute("INSERT INTO tap_upload.ids VALUES (?)", (star,))
        self.queries.append(job["query"])
        try:
            rows = cursor.execute(job["query"]).fetchall()
        except sqlite3.Error as error:
            job.update(phase="ERROR", error=ERROR.format(str(error)))
            return
        names = [column[0] for column in cursor.description]
        job.update(phase="COMPLETED", result=self._votable(names, rows))

    def _votable(self, names: list[str], rows: list[tuple[Any, ...]]) -> bytes:
        table = Table()
        for place, name in enumerate(names):
            values = [row[place] for row in rows]
            missing = [value is None for value in values]
            if name == "has_xp_continuous":
                kind, filled = bool, [value == "t" for value in values]
            elif name in TEXT:
                kind, filled = str, [value or "" for value in values]
            else:
                kind = np.int64 if name == "source_id" else np.float64
                filled = [0 if value is None else value for value in values]
            table[name] = MaskedColumn(np.array(filled, dtype=kind), mask=missing)
        whole = from_table(table)
        single = whole.get_first_table()
        for one in single.fields:  # the archive's type; astropy writes a bit
            if one.datatype == "bit":
                one.datatype = "boolean"
        out = io.BytesIO()
        whole.to_xml(out, tabledata_format="binary2")
        status = b'<INFO name="QUERY_STATUS" value="OVERFLOW"/></RESOURCE>'
        return out.getvalue().replace(b"</RESOURCE>", status) if self.overflow else out.getvalue()

    def zip_of(self, ids: list[int]) -> bytes:
        """DataLink's answer for some stars: those that have a spectrum."""
        rows = [
            self.spectra[one] for one in ids if one in self.spectra and one not in self.withheld
        ]
        out = io.BytesIO()
        with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
            if rows:
                archive.writestr("XP_CONTINUOUS_RAW.csv", csv_bytes(rows, COLUMNS))
        return out.getvalue()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    services: LocalServices

    def do_POST(self) -> None:
        fields, files = self._form()
        if self.path.endswith("/data"):
            self._datalink(fields)
        elif self.path.endswith("/async"):
            if self.services.tap_faults:
                self._send(self.services.tap_faults.pop(0), b"down")
                return
            number = str(len(self.services.jobs) + 1)
            ids = [int(one) for one in parse_single_table(files["ids"]).to_table()["source_id"]] \
                if files else []  # fmt: skip
            job = {"query": fields["QUERY"], "ids": ids, "phase": "PENDING", "error": ""}
            self.services.jobs[number] = job
            self._see(number)
        else:
            number = re.findall(r"/async/(\d+)/phase", self.path)[0]
            self.services.run(self.services.jobs[number])
            self._see(number)

    def do_GET(self) -> None:
        number = re.findall(r"/async/(\d+)", self.path)[0]
        job = self.services.jobs[number]
        if self.path.endswith("/results/result"):
            whole = job["result"]
            if self.services.compressed:
                self._send(200, gzip.compress(whole), {"Content-Encoding": "gzip"})
            else:
                self._send(200, whole)
            return
        text = JOB.format(number=number, url=self.services.tap, phase=job["phase"],
                          error=job["error"])  # fmt: skip
        self._send(200, text.encode())

    def do_DELETE(self) -> None:
        self.services.deleted += 1
        self._send(200, b"")

    def _see(self, number: str) -> None:
        self._send(303, b"", {"Location": f"{self.services.tap}/async/{number}"})

    def _datalink(self, fields: dict[str, str]) -> None:
        ids = [int(one) for one in fields["ID"].split(",")]
        self.services.asked.append(ids)
        wanted = ("Gaia DR3", "XP_CONTINUOUS", "RAW", "csv")
        named = ("RELEASE", "RETRIEVAL_TYPE", "DATA_STRUCTURE", "FORMAT")
        assert tuple(fields[name] for name in named) == wanted
        if self.services.answers:
            self._send(*self.services.answers.pop(0))
        elif len(ids) > LIMIT:
            self._send(500, b"too many identifiers")
        else:
            self._send(200, self.services.zip_of(ids))

    def _form(self) -> tuple[dict[str, str], dict[str, io.BytesIO]]:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        kind = self.headers["Content-Type"]
        if not kind.startswith("multipart"):
            return {name: held[0] for name, held in parse_qs(body.decode()).items()}, {}
        whole = email.message_from_bytes(f"Content-Type: {kind}\n\n".encode() + body)
        fields, files = {}, {}
        for part in whole.get_payload():
            name = part.get_param("name", header="Content-Disposition")
            if part.get_filename():
                files[name] = io.BytesIO(part.get_payload(decode=True))
            else:
                fields[name] = part.get_payload(decode=True).decode()
        return fields, files

    def _send(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        pass


def local_services(stars: pa.Table, without: int = 5) -> LocalServices:
    """Services that know some spectra, and as many more sources that have none.

    Every second star has 2MASS magnitudes; star number k has parallax k / 10 mas and error 0.5,
    G = 10 + k / 10 and BP-RP = k / 20.
    """
    known = load_release()
    base = sqlite3.connect(":memory:", check_same_thread=False)
    base.create_function("LOG10", 1, lambda x: math.log10(x) if x and x > 0 else None)
    for schema in ("gaiadr3", "gaiadr1", "tap_upload"):
        base.execute(f"ATTACH ':memory:' AS {schema}")
    columns = [
        *known.columns["gaia_source"].values(),
        "has_xp_continuous",
        "parallax_over_error",
        "bp_rp",
    ]
    base.execute(f"CREATE TABLE gaiadr3.gaia_source ({', '.join(columns)})")
    base.execute(
        "CREATE TABLE gaiadr3.tmass_psc_xsc_best_neighbour (source_id, clean_tmass_psc_xsc_oid)"
    )
    base.execute(
        "CREATE TABLE gaiadr3.tmass_psc_xsc_join (clean_tmass_psc_xsc_oid, original_psc_source_id)"
    )
    two_mass = ", ".join(["designation", *known.columns["tmass_original_valid"].values()])
    base.execute(f"CREATE TABLE gaiadr1.tmass_original_valid ({two_mass})")
    base.execute("CREATE TABLE tap_upload.ids (source_id)")
    ids = stars.column("source_id").to_pylist()
    for number, star in enumerate([*ids, *(one + 1 for one in ids[:without])]):
        row = dict.fromkeys(columns, None) | {
            "source_id": star, "ra": 10.0, "parallax": number / 10, "parallax_error": 0.5,
            "parallax_over_error": number / 5, "phot_g_mean_mag": 10 + number / 10,
            "bp_rp": number / 20, "has_xp_continuous": "t" if number < len(ids) else "f",
            "phot_variable_flag": "NOT_AVAILABLE", "ruwe": 1.0,
        }  # fmt: skip
        marks = ", ".join("?" * len(columns))
        base.execute(f"INSERT INTO gaiadr3.gaia_source VALUES ({marks})", [row[c] for c in columns])
        if number % 2 == 0:
            base.execute(
                "INSERT INTO gaiadr3.tmass_psc_xsc_best_neighbour VALUES (?, ?)", (star, number)
            )
            base.execute(
                "INSERT INTO gaiadr3.tmass_psc_xsc_join VALUES (?, ?)", (number, f"J{number}")
            )
            values = (f"J{number}", 9 + number / 10, 0.02, 8.5, 0.02, 8.25, 0.02, "AAA")
            base.execute(
                "INSERT INTO gaiadr1.tmass_original_valid VALUES (?,?,?,?,?,?,?,?)", values
            )
    return LocalServices(base, {row["source_id"]: row for row in stars.to_pylist()})


@contextmanager
def serving(services: LocalServices) -> Iterator[LocalServices]:
    """Serve until the block ends."""
    handler = type("Handler", (_Handler,), {"services": services})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    services.url = f"http://127.0.0.1:{server.server_port}"
    try:
        yield services
    finally:
        server.shutdown()
        server.server_close()
        services.database.close()
