"""Files as users have them: each is read as it was meant, or refused with the reason."""

from __future__ import annotations

import ast
import gzip
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from astropy.table import Table
from support.paths import DATA
from support.xp_files import ARCHIVE, ARRAYS, COLUMNS, csv_bytes, fits_bytes, plain_csv, votable

from catalogproc.errors import InputError
from catalogproc.io.staging import located, named
from catalogproc.readers import joined_rows
from catalogproc.readers.chunks import expand
from catalogproc.readers.gaia_source import open_auxiliary
from catalogproc.readers.xp import read_spectra
from catalogproc.release import Release, load_release

INPUTS = DATA / "user_inputs"
STARS = pa.array([4295806720, 38655544960, 1275606125952, 1653563247744, 2851858288640,
                  3332894779520])  # fmt: skip
WITHOUT_SPECTRUM = {1275606125952, 2851858288640}


def spectra(path: Path) -> pa.Table:
    return pa.Table.from_batches(read_spectra(path))


def auxiliary(path: Path, staging: Path, stars: pa.Array = STARS) -> pa.Table:
    return open_auxiliary([path], staging).match(stars)


@pytest.mark.parametrize("ending", ["parquet", "ecsv", "fits", "vot", "td.vot"])
def test_a_star_without_a_match_has_no_spectrum_in_any_format(ending: str) -> None:
    """An astropy left join; behind the masks stand the spectra of other stars."""
    table = spectra(INPUTS / f"join_left.{ending}")
    assert table.column("source_id").to_pylist() == STARS.to_pylist()
    for name in ("bp_coefficients", "bp_coefficient_errors", "rp_coefficients"):
        missing = {
            star
            for star, value in zip(STARS.to_pylist(), table.column(name).to_pylist(), strict=True)
            if value is None
        }
        assert missing == WITHOUT_SPECTRUM, name


def test_a_masked_element_of_an_array_is_missing(tmp_path: Path) -> None:
    values = pa.array([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]], pa.list_(pa.float64(), 3))
    masks = pa.array([[False, True, False], [True, True, True]], pa.list_(pa.bool_(), 3))
    columns = {"source_id": [1, 2]}
    for band in ("bp", "rp"):
        for kind in ("coefficients", "coefficient_errors"):
            columns |= {f"{band}_{kind}": values, f"{band}_{kind}.mask": masks}
    pq.write_table(pa.table(columns), tmp_path / "masked.parquet")
    first, second = spectra(tmp_path / "masked.parquet").column("bp_coefficients").to_pylist()
    assert first[0] == 1.0
    assert np.isnan(first[1])
    assert first[2] == 3.0
    assert second is None


def test_a_mask_of_another_length_is_refused(tmp_path: Path) -> None:
    columns = {"source_id": [1], "ra": [1.0], "ra.mask": ["perhaps"]}
    pq.write_table(pa.table(columns), tmp_path / "odd.parquet")
    with pytest.raises(InputError, match="perhaps"):
        auxiliary(tmp_path / "odd.parquet", tmp_path, pa.array([1]))


@pytest.mark.parametrize("name", ["comp_astropy.parquet", "comp_dm.ecsv"])
def test_a_masked_parallax_is_missing(name: str, tmp_path: Path) -> None:
    found = auxiliary(INPUTS / name, tmp_path)
    plain = auxiliary(INPUTS / "comp_gaps.csv", tmp_path)
    for column in ("parallax", "parallax_error", "j_m", "j_msigcom", "ph_qual"):
        assert found.column(column).is_null().to_pylist() == (
            plain.column(column).is_null().to_pylist()
        ), column
    assert found.column("parallax").null_count > 0


def test_masked_positions_and_photometry_are_missing(tmp_path: Path) -> None:
    found = auxiliary(INPUTS / "comp_nog_astropy.parquet", tmp_path)
    plain = auxiliary(INPUTS / "comp_nog.csv", tmp_path)
    assert found.column("ra").null_count == 2
    for column in ("ra", "dec", "phot_g_mean_mag", "phot_bp_mean_mag", "parallax"):
        np.testing.assert_allclose(
            found.column(column).to_numpy(), plain.column(column).to_numpy(), err_msg=column
        )


@pytest.mark.parametrize("ending", ["fits", "vot", "ecsv", "parquet"])
def test_stated_units_are_converted(ending: str, tmp_path: Path) -> None:
    """Parallax in arcsec, positions in radians, as the file states."""
    found = auxiliary(INPUTS / f"unit_arcsec.{ending}", tmp_path)
    plain = auxiliary(INPUTS / "comp.fits", tmp_path)
    assert plain.column("ra").to_numpy()[0] == pytest.approx(289.801, abs=1e-3)
    for column in ("ra", "dec", "parallax", "parallax_error", "phot_g_mean_mag", "ecl_lat"):
        np.testing.assert_allclose(
            found.column(column).to_numpy(), plain.column(column).to_numpy(), rtol=1e-12,
            err_msg=column,
        )  # fmt: skip


def test_a_unit_that_cannot_be_converted_is_refused_with_both(tmp_path: Path) -> None:
    fields = [pa.field("source_id", pa.int64()),
              pa.field("parallax", pa.float64(), metadata={"unit": "kpc"})]  # fmt: skip
    pq.write_table(pa.table([[1], [2.0]], schema=pa.schema(fields)), tmp_path / "kpc.parquet")
    with pytest.raises(InputError, match=r"wanted: mas\s+found: kpc"):
        auxiliary(tmp_path / "kpc.parquet", tmp_path)


def test_fluxes_in_counts_and_in_electrons_are_the_same(tmp_path: Path) -> None:
    table = pq.read_table(INPUTS / "xp6.parquet")
    fields = [
        field.with_metadata({"unit": "ct/ms"}) if "coefficient" in field.name else field
        for field in table.schema
    ]
    pq.write_table(table.cast(pa.schema(fields)), tmp_path / "counts.parquet")
    plain, found = spectra(INPUTS / "xp6.parquet"), spectra(tmp_path / "counts.parquet")
    for name in ("bp_coefficients", "rp_coefficient_errors"):
        np.testing.assert_allclose(
            found.column(name).combine_chunks().flatten().to_numpy(),
            1000 * plain.column(name).combine_chunks().flatten().to_numpy(),
        )


@pytest.mark.parametrize("name", ["two_hdus.fits", "two_tables.vot"])
def test_several_tables_with_the_same_columns_are_read_as_one(name: str) -> None:
    table = spectra(INPUTS / name)
    assert table.column("source_id").to_pylist() == STARS.to_pylist()
    assert table.column("row").to_pylist() == list(range(6))
    np.testing.assert_allclose(
        table.column("bp_coefficients").combine_chunks().flatten().to_numpy(),
        spectra(INPUTS / "xp6.parquet").column("bp_coefficients").combine_chunks().flatten(),
        rtol=1e-6,
    )


def test_coefficients_in_one_column_each(tmp_path: Path) -> None:
    from astropy.table import Table

    path = INPUTS / "twenty_stars.fits"
    table, plain = spectra(path), Table.read(path)
    assert table.num_rows == 20
    for ours, theirs in (
        ("bp_coefficients", "bp_coeff_"),
        ("rp_coefficient_errors", "e_rp_coeff_"),
    ):
        matrix = np.stack([plain[f"{theirs}{k}"] for k in range(55)], axis=1)
        np.testing.assert_array_equal(
            np.array(table.column(ours).to_pylist()), np.asarray(matrix, dtype=np.float64)
        )
    plain.rename_columns(
        [f"{b}_coeff_{k}" for b in ("bp", "rp") for k in range(55)],
        [f"{b}_coef_{k}" for b in ("bp", "rp") for k in range(55)],
    )
    plain.rename_columns(
        [f"e_{b}_coeff_{k}" for b in ("bp", "rp") for k in range(55)],
        [f"{b}_coeff_err_{k}" for b in ("bp", "rp") for k in range(55)],
    )
    plain.write(tmp_path / "renamed.fits")
    assert spectra(tmp_path / "renamed.fits").equals(table)


def test_line_breaks_inside_of_quotation_marks(tmp_path: Path) -> None:
    """pandas writes an array of numpy over several lines."""
    table, plain = spectra(INPUTS / "np_repr.csv"), pd.read_csv(INPUTS / "np_repr.csv")
    assert table.column("source_id").to_pylist() == plain["source_id"].tolist()
    assert table.column("fault").null_count == 6
    for row, text in enumerate(plain["bp_coefficients"]):
        numbers = [ast.literal_eval(word) for word in text.strip("[]").split()]
        assert table.column("bp_coefficients")[row].as_py() == pytest.approx(numbers)


@pytest.mark.parametrize("release", [None, load_release("dr3")])
def test_magnitudes_and_luminosities_are_not_galactic_coordinates(
    tmp_path: Path, release: Release | None
) -> None:
    stars = pa.array([2486666496790076928])
    found = open_auxiliary([INPUTS / "comp_BV.csv"], tmp_path, release).match(stars)
    assert found.column("l").null_count == found.column("b").null_count == 1
    assert found.column("ra").to_pylist() == [150.0]


def test_other_names_in_use_are_read(tmp_path: Path) -> None:
    stars = pa.array([2486666496790076928])
    found = auxiliary(INPUTS / "other_names.csv", tmp_path, stars)
    row = {name: found.column(name)[0].as_py() for name in found.column_names}
    assert row["phot_g_mean_mag"] == pytest.approx(14.5)
    assert (row["j_m"], row["h_m"], row["ks_m"]) == pytest.approx((12.0, 11.4, 11.2))


@pytest.mark.parametrize("write", ["fits", "parquet"])
def test_nan_is_missing_so_that_another_table_has_the_value(tmp_path: Path, write: str) -> None:
    """Also where rows with NaN repeat: NaN differs from NaN, but the rows do not."""
    first = Table({"source_id": [5, 6, 5], "parallax": [np.nan, 1.0, np.nan]})
    first.write(tmp_path / f"first.{write}")
    (tmp_path / "second.csv").write_text("source_id,parallax,ruwe\n5,2.5,1.1\n6,1.0,1.2\n")
    files = [tmp_path / f"first.{write}", tmp_path / "second.csv"]
    stars = joined_rows.STARS
    joined = open_auxiliary(files, tmp_path / "staged").join(pa.array([5, 6]))
    assert joined.rows.column("parallax").to_pylist() == [2.5, 1.0]
    assert joined.account[str(files[0])] == {stars: 2, joined_rows.REPEATED: 1, "parallax": 1}
    assert joined.account[str(files[1])] == {stars: 2, "parallax": 1, "ruwe": 2}


def test_a_misspelt_column_is_named_with_the_one_that_was_meant(tmp_path: Path) -> None:
    (tmp_path / "gaia.csv").write_text("source_id,paralax\n5,1.0\n")
    with pytest.raises(InputError, match="paralax: did you mean parallax"):
        auxiliary(tmp_path / "gaia.csv", tmp_path)
    table = pq.read_table(INPUTS / "xp6.parquet")
    names = [name.replace("bp_coefficients", "bp_coeficients") for name in table.column_names]
    pq.write_table(table.rename_columns(names), tmp_path / "xp.parquet")
    with pytest.raises(InputError, match="bp_coeficients: did you mean bp_coefficients") as caught:
        spectra(tmp_path / "xp.parquet")
    assert caught.value.wanted == "bp_coefficients"
    assert "errors: did you mean" not in (caught.value.advice or "")


def test_elements_with_and_without_a_unit_are_refused_with_both(tmp_path: Path) -> None:
    table = Table.read(INPUTS / "twenty_stars.fits")
    table["bp_coeff_0"].unit = "electron / s"
    table.write(tmp_path / "units.ecsv")
    with pytest.raises(InputError, match=r"different units\n.*\n  found: no unit, electron"):
        spectra(tmp_path / "units.ecsv")


def test_rows_repeated_in_every_column_are_one_row(tmp_path: Path) -> None:
    plain = pd.read_csv(INPUTS / "identical_repeats.csv")
    stars = pa.array(plain["source_id"].unique())
    found = auxiliary(INPUTS / "identical_repeats.csv", tmp_path, stars)
    assert len(plain) > len(stars)
    assert found.column("parallax").null_count == 0
    changed = plain.copy()
    changed.loc[changed.index[-1], "parallax"] += 1
    changed.to_csv(tmp_path / "changed.csv", index=False)
    with pytest.raises(InputError, match="1 star with different rows"):
        auxiliary(tmp_path / "changed.csv", tmp_path / "staged", stars)


@pytest.mark.parametrize("write", ["capitals", "crossmatch", "designation"])
def test_names_of_a_crossmatch_and_designations(write: str, tmp_path: Path) -> None:
    plain = pd.read_csv(INPUTS / "comp_gaps.csv")
    if write == "capitals":
        changed = plain.rename(columns=str.upper)
    elif write == "crossmatch":
        changed = plain.rename(columns=lambda name: f"{name}_gaia")
        changed["ra_xp"] = 0.0
    else:
        changed = plain.rename(columns={"source_id": "designation"})
        changed["designation"] = [f"Gaia DR3 {star}" for star in plain["source_id"]]
    changed.to_csv(tmp_path / "changed.csv", index=False)
    found = auxiliary(tmp_path / "changed.csv", tmp_path)
    assert found.equals(auxiliary(INPUTS / "comp_gaps.csv", tmp_path))


def nested(layout: str) -> pa.Table:
    """The six stars with spectra as a struct, or as lists of one list."""
    table = pq.read_table(INPUTS / "xp6.parquet")
    if layout == "struct":
        names = [name for name in table.column_names if name != "source_id"]
        arrays = [table.column(name).combine_chunks() for name in names]
        return pa.table(
            {"source_id": table["source_id"], "xp": pa.StructArray.from_arrays(arrays, names)}
        )
    return pa.table(
        {
            name: [[row] for row in table[name].to_pylist()] if "coef" in name else table[name]
            for name in table.column_names
        }
    )


@pytest.mark.parametrize("layout", ["struct", "list of one list"])
def test_nested_columns(layout: str, tmp_path: Path) -> None:
    pq.write_table(nested(layout), tmp_path / "nested.parquet")
    assert spectra(tmp_path / "nested.parquet").equals(spectra(INPUTS / "xp6.parquet"))


def test_an_empty_partition_of_null_types_has_no_rows(tmp_path: Path) -> None:
    names = pq.read_schema(INPUTS / "xp6.parquet").names
    pq.write_table(pa.table({name: pa.nulls(0) for name in names}), tmp_path / "empty.parquet")
    assert list(read_spectra(tmp_path / "empty.parquet")) == []


@pytest.fixture
def stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("CATALOGPROC_STAGE", str(tmp_path / "stage"))
    return tmp_path / "stage"


def datalink_zip(path: Path) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        archive.write(INPUTS / "xp6.parquet", "XP_CONTINUOUS-Gaia DR3.parquet")
        archive.writestr("RVS-Gaia DR3.csv", "wavelength,flux\n1,2\n")
        archive.writestr("readme.txt", "hello")
    return path


def test_the_spectra_in_a_zip_archive_are_read_and_the_rest_is_named(
    stage: Path, tmp_path: Path
) -> None:
    told: list[str] = []
    (tmp_path / "folder").mkdir()
    path = datalink_zip(tmp_path / "folder" / "datalink.zip")
    for word in (path, tmp_path / "folder", f"{tmp_path}/folder/*.zip"):
        (file,) = expand([word], told.append)
        assert spectra(file).equals(spectra(INPUTS / "xp6.parquet"))
        assert named(file) == f"zip:/{path}/XP_CONTINUOUS-Gaia DR3.parquet"
        assert located(named(file)) == file
    assert "1 of 3 files read; not read: RVS-Gaia DR3.csv, readme.txt" in told[0]


@pytest.mark.parametrize("structure", ["DATAMODEL_GAIA", "DATAMODEL_STANDARD"])
@pytest.mark.parametrize("ending", ["csv", "ecsv", "vot", "fits"])
def test_archives_of_dr4_by_analogy_with_those_of_dr3(
    structure: str, ending: str, stage: Path, tmp_path: Path
) -> None:
    """DR3 gives one file of all stars (RAW) or one per star (INDIVIDUAL). How the names and
    layouts of DR4 differ is not known; the names of the product and structures are announced."""
    rows, files = plain_csv(ARCHIVE / "XP_CONTINUOUS_RAW.csv"), {}
    each = [rows] if structure == "DATAMODEL_GAIA" else [[row] for row in rows]
    for stars in each:
        name = f"MEAN_SPECTRUM_XP-Gaia DR4 {stars[0]['source_id']}-{structure}.{ending}"
        columns = {n: ("55D", np.array([row[n] for row in stars])) for n in ARRAYS}
        ids = {"source_id": ("K", np.array([row["source_id"] for row in stars]))}
        files[name] = {
            "csv": lambda stars=stars: csv_bytes(stars, COLUMNS),
            "ecsv": lambda stars=stars: csv_bytes(stars, COLUMNS, ecsv=True),
            "vot": lambda stars=stars: votable(stars, "BINARY2"),
            "fits": lambda ids=ids, columns=columns: fits_bytes(ids | columns),
        }[ending]()
    with zipfile.ZipFile(tmp_path / "datalink.zip", "w") as archive:
        for name, content in (files | {"EPOCH_SPECTRUM_XP-Gaia DR4.csv": b"a,b\n"}).items():
            archive.writestr(name, content)
    told: list[str] = []
    found = expand([tmp_path / "datalink.zip"], told.append)
    read = pa.concat_tables([spectra(path) for path in found])
    wanted = spectra(ARCHIVE / "XP_CONTINUOUS_RAW.csv").sort_by("source_id")
    assert read.sort_by("source_id")["bp_coefficients"].equals(wanted["bp_coefficients"])
    assert "not read: EPOCH_SPECTRUM_XP-Gaia DR4.csv" in told[0]


@pytest.mark.parametrize("mark", ["\t", ";"])
def test_columns_between_tabs_or_semicolons(mark: str, tmp_path: Path) -> None:
    plain = pd.read_csv(INPUTS / "comp_gaps.csv", dtype=str)
    plain.to_csv(tmp_path / "stars.tsv", sep=mark, index=False)
    found = auxiliary(tmp_path / "stars.tsv", tmp_path)
    assert found.equals(auxiliary(INPUTS / "comp_gaps.csv", tmp_path))


def test_a_zip_archive_that_reaches_outside_or_is_damaged_is_refused(
    stage: Path, tmp_path: Path
) -> None:
    with zipfile.ZipFile(tmp_path / "evil.zip", "w") as archive:
        archive.writestr("../../outside.csv", "source_id\n1\n")
    with pytest.raises(InputError, match="outside of the archive"):
        expand([tmp_path / "evil.zip"])
    assert not (tmp_path / "outside.csv").exists()
    path = datalink_zip(tmp_path / "cut.zip")
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(InputError, match="cannot be unpacked"):
        expand([path])


def test_a_file_and_its_compressed_copy_are_one(tmp_path: Path) -> None:
    plain = shutil.copy(INPUTS / "np_repr.csv", tmp_path / "stars.csv")
    (tmp_path / "stars.csv.gz").write_bytes(gzip.compress(plain.read_bytes()))
    told: list[str] = []
    assert expand([tmp_path], told.append) == [plain]
    assert "stars.csv.gz: not read, it is stars.csv, compressed" in told[0]
    (tmp_path / "stars.csv.gz").write_bytes(gzip.compress(b"source_id\n1\n"))
    assert len(expand([tmp_path])) == 2


def test_margins_and_metadata_of_a_hats_catalog_are_no_spectra(tmp_path: Path) -> None:
    for catalog, kind in (("xp", "object"), ("xp_margin", "margin")):
        leaf = tmp_path / catalog / "dataset" / "Norder=0" / "Dir=0"
        leaf.mkdir(parents=True)
        shutil.copy(INPUTS / "xp6.parquet", leaf / "Npix=0.parquet")
        shutil.copy(INPUTS / "xp6.parquet", tmp_path / catalog / "dataset" / "_metadata.parquet")
        (tmp_path / catalog / "hats.properties").write_text(f"dataproduct_type={kind}\n")
        shutil.copy(INPUTS / "xp6.parquet", tmp_path / catalog / "statistics.parquet")
    told: list[str] = []
    found = expand([f"{tmp_path}/**/*.parquet"], told.append)
    assert [str(path.relative_to(tmp_path)) for path in found] == [
        "xp/dataset/Norder=0/Dir=0/Npix=0.parquet"
    ]
    assert "1 of 6 files read; not read:" in told[0]
