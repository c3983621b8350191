"""FITS tables as the archive, astropy and accidents write them."""

from __future__ import annotations

import numpy as np
import pytest
from support.xp_files import (
    ARCHIVE,
    ARRAYS,
    COLUMNS,
    agrees,
    fits_bytes,
    plain_csv,
    put,
    real,
    spectra,
)

from catalogproc.errors import InputError
from catalogproc.readers.formats import fits as module

MISSING_BP = "XP_CONTINUOUS_RAW_with_missing_BP"


@pytest.fixture(scope="module")
def two() -> list[dict]:
    """The two stars of the archive's files, by Python's own csv and json."""
    return plain_csv(ARCHIVE / "XP_CONTINUOUS_RAW.csv")


@pytest.mark.parametrize("repeat", ["55D", "PD(55)", "QD(55)"])
def test_fits_arrays_of_fixed_and_of_own_length(repeat, tmp_path):
    table = real(20)
    blank = np.full(55, np.nan) if repeat == "55D" else np.empty(0)
    columns = {"SOURCE_ID": ("K", table.column("source_id").to_numpy())}
    for name in ARRAYS:
        rows = [np.array(row) for row in table.column(name).to_pylist()]
        rows[7] = blank if name.startswith("bp") else rows[7]
        values = np.array(rows) if repeat == "55D" else np.array([*rows, None], object)[:-1]
        columns[name.upper()] = (repeat, values)
    found = spectra(put(tmp_path, "a.fits", fits_bytes(columns)))
    assert found.column("bp_coefficients").is_null().to_pylist() == [row == 7 for row in range(20)]
    assert found.column("bp_n_relevant_bases").null_count == 20
    kept = [row for row in range(20) if row != 7]
    for name in ARRAYS:
        wanted = table.column(name).cast(found.schema.field(name).type)
        assert found.column(name).take(kept).to_pylist() == wanted.take(kept).to_pylist()


def test_fits_numbers_that_are_unsigned_or_null(tmp_path):
    from astropy.io import fits

    table = real(4)
    columns = [
        fits.Column(
            "source_id", "K", bzero=1 << 63, array=np.array([5, 6, (1 << 63) + 1, 8], "u8")
        ),
        fits.Column("bp_n_relevant_bases", "I", null=-1, array=np.array([1, -1, 3, 4], "i2")),
        fits.Column("rp_n_relevant_bases", "J", bzero=1 << 31, array=np.array([1, 2, 3, 4], "u4")),
        *(fits.Column(n, "55D", array=np.array(table.column(n).to_pylist())) for n in ARRAYS),
    ]
    fits.BinTableHDU.from_columns(columns).writeto(tmp_path / "a.fits")
    found = spectra(tmp_path / "a.fits")
    assert found.column("source_id").to_pylist() == [5, 6, None, 8]
    assert "9223372036854775809" in found.column("fault")[2].as_py()
    assert found.column("bp_n_relevant_bases").to_pylist() == [1, None, 3, 4]
    assert found.column("rp_n_relevant_bases").to_pylist() == [1, 2, 3, 4]


@pytest.mark.parametrize("name", ["XP_CONTINUOUS_RAW.fits", f"{MISSING_BP}.fits"])
def test_headers_say_what_astropy_finds_in_them(name):
    from astropy.io import fits

    with fits.open(ARCHIVE / name) as units, (ARCHIVE / name).open("rb") as file:
        for unit in units:
            header = module._header(file)
            said = set(unit.header) - {"COMMENT", "HISTORY", ""}
            wanted = {key: unit.header[key] for key in said if len(key) <= 8}
            assert {key: header[key] for key in wanted} == wanted
            start, size = unit.fileinfo()["datLoc"], unit.fileinfo()["datSpan"]
            assert file.tell() == start
            assert -(-module._data_size(header) // 2880) * 2880 == size
            file.seek(start + size)
        assert module._header(file) is None


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("                   12 / comment", 12), ("1.5E3", 1500.0), ("  -2.5D-1 /", -0.25),
        ("                    T", True), ("F / no", False), ("'it''s   ' / said", "it's"),
        ("''", ""), ("9223372036854775808", 1 << 63), ("", None), ("nonsense", None),
    ],
)  # fmt: skip
def test_values_of_cards(text, value):
    assert module._value(text) == value


def test_a_table_behind_an_image(tmp_path, two):
    from astropy.io import fits

    with fits.open(ARCHIVE / "XP_CONTINUOUS_RAW.fits") as units:
        image = fits.ImageHDU(np.zeros((7, 5, 3), "f4"))
        fits.HDUList([fits.PrimaryHDU(np.ones(9999)), image, units[1]]).writeto(tmp_path / "a.fits")
        fits.HDUList([units[0], image]).writeto(tmp_path / "b.fits")
    assert agrees(spectra(tmp_path / "a.fits"), two, COLUMNS)
    with pytest.raises(InputError, match="2 parts, none of them a table"):
        spectra(tmp_path / "b.fits")


@pytest.mark.timeout(20)
@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b"NAXIS   =                    0", b"NAXIS   =           2000000000"),
        (b"NAXIS2  =                    2", b"NAXIS2  = 99999999999999999999"),
        (b"NAXIS2  =                    2", b"NAXIS2  =                   -2"),
        (b"TFIELDS =                   26", b"TFIELDS =            999999999"),
        (b"PCOUNT  =                26400", b"PCOUNT  =         999999999999"),
        (b"TFORM10 = 'PD(55)  '", b"TFORM10 = 'PD(5'    "),
        (b"TFORM1  = 'K       '", b"TFORM1  = '9K      '"),
        (b"END" + b" " * 77, b"   " + b" " * 77),
    ],
)
def test_a_header_that_cannot_be_true_is_refused_at_once(old, new, tmp_path):
    content = (ARCHIVE / "XP_CONTINUOUS_RAW.fits").read_bytes()
    assert old in content
    with pytest.raises(InputError):
        spectra(put(tmp_path, "a.fits", content.replace(old, new, 1)))


def test_scaled_numbers_are_what_astropy_reads(tmp_path):
    """TSCAL and TZERO of integers and floats: value = TZERO + TSCAL * stored."""
    from astropy.io import fits

    stored = np.arange(3 * 55, dtype=np.int16).reshape(3, 55)
    columns = [
        fits.Column("source_id", "K", array=np.array([5, 6, 7])),
        fits.Column("bp_n_relevant_bases", "I", array=np.array([4, 5, 6], np.int16)),
        *(fits.Column(name, "55I", array=stored) for name in ARRAYS),
    ]
    path = tmp_path / "scaled.fits"
    fits.BinTableHDU.from_columns(columns).writeto(path)
    for number, (scale, zero) in {2: (2, -7), 3: (0.25, 3.5), 6: (-1e-3, 0)}.items():
        fits.setval(path, f"TSCAL{number}", value=scale, ext=1)
        fits.setval(path, f"TZERO{number}", value=zero, ext=1)
    found = spectra(path)
    assert found.column("bp_n_relevant_bases").to_pylist() == [1, 3, 5]
    with fits.open(path) as opened:
        for name in ARRAYS:
            values = np.array(found.column(name).to_pylist())
            np.testing.assert_allclose(values, opened[1].data[name], rtol=1e-6)
    np.testing.assert_allclose(np.array(found.column(ARRAYS[0])[0].as_py()), 3.5 + 0.25 * stored[0])
