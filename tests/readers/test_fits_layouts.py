"""Tables of FITS that are not binary rows: ASCII tables, and tables by columns (colfits)."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from support.fits_files import ascii_table, colfits
from support.xp_files import put, real, same, scattered, spectra, zipped

from catalogproc.readers.formats import open_table
from catalogproc.readers.gaia_source import open_auxiliary


def test_an_ascii_table_of_spectra(tmp_path):
    """One column per element, numbers as Fortran writes them; a missing band is blank."""
    from astropy.io import fits

    table = scattered(real(7), lambda name, place: f"{name}_{place}")
    columns = []
    for name in table.column_names:
        form = "I20" if name == "source_id" or name.endswith("bases") else "D25.17"
        columns.append(fits.Column(name, form, array=table[name].to_numpy(), ascii=True))
    unit = fits.TableHDU.from_columns(columns)
    fits.HDUList([fits.PrimaryHDU(), unit]).writeto(tmp_path / "a.fits")
    content = (tmp_path / "a.fits").read_bytes()
    assert same(spectra(tmp_path / "a.fits"), real(7))
    assert same(spectra(put(tmp_path, "b.fits.gz", zipped(content))), real(7))
    first = float(table["bp_coefficients_0"][3])
    text = f"{first:25.17E}".replace("E", "D").encode()
    assert content.count(text) == 1
    found = spectra(put(tmp_path, "c.fits", content.replace(text, b" " * 25)))
    assert np.isnan(found["bp_coefficients"][3].as_py()[0])
    found = spectra(put(tmp_path, "d.fits", content.replace(text, b"perhaps".rjust(25))))
    assert "bp_coefficients: wanted numbers" in found["fault"][3].as_py()
    assert found["fault"].null_count == 6


def test_an_ascii_table_as_the_standard_has_it(tmp_path):
    """Exponents with D and without a letter, implied decimal points, TNULL, TSCAL, units."""
    names = {"source_id": "I20", "ra": "F8.3", "parallax": "E12.4", "ruwe": "I4", "ph_qual": "A3"}
    cards: dict[str, object] = {"TFIELDS": 5, "TNULL2": "-99", "TSCAL4": 0.01, "TZERO4": 1.0,
                                "TUNIT3": "arcsec"}  # fmt: skip
    place = 1
    for number, (name, form) in enumerate(names.items(), start=1):
        cards |= {f"TTYPE{number}": name, f"TFORM{number}": form, f"TBCOL{number}": place}
        place += int(form[1:].partition(".")[0]) + 1
    rows = [
        f"{star:>20} {ra:>8} {plx:>12} {ruwe:>4} {qual:<3}"
        for star, ra, plx, ruwe, qual in (
            (4295806720, "10.250", "0.1000D-2", "25", "AAA"),
            (38655544960, "10250", "1.5-3", "", "BUU"),
            (1275606125952, "-99", "12345", "100", ""),
        )
    ]
    path = put(tmp_path, "a.fits", ascii_table(rows, cards))
    stars = pa.array([4295806720, 38655544960, 1275606125952])
    found = open_auxiliary([path], tmp_path / "staged").match(stars)
    assert found["ra"].to_pylist() == [10.25, 10.25, None]
    assert found["parallax"].to_pylist() == pytest.approx([1.0, 1.5, 1234.5])
    assert found["ruwe"].to_pylist() == pytest.approx([1.25, None, 2.0])
    assert found["ph_qual"].to_pylist() == ["AAA", "BUU", None]


def _columns(table: pa.Table) -> list[tuple[str, str, np.ndarray, np.ndarray]]:
    made = []
    for name in table.column_names:
        values = np.array(table[name].to_pylist())
        made.append((name, "", values, np.zeros(values.shape, bool)))
    return made


@pytest.mark.parametrize("plus", [False, True])
def test_a_table_by_columns(plus, tmp_path):
    table = real(11).append_column("name", pa.array([f"s{row:04d}" for row in range(11)]))
    path = put(tmp_path, "a.colfits", colfits(_columns(table), plus=plus))
    found = spectra(path)
    assert same(found, real(11))
    assert spectra(path, skip=4, rows=3).equals(found.slice(4, 3))
    assert same(spectra(path, batch_rows=2), real(11))
    text = open_table(path).batches(["name", "source_id"], batch_rows=4)
    assert b"".join(b"".join(part.columns["name"].to_pylist()) for part in text) == b"".join(
        name.as_py().encode() for name in table["name"]
    )
    assert same(spectra(put(tmp_path, "one.fits", colfits(_columns(real(1)), plus=plus))), real(1))
