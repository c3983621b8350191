"""infer: which columns are read, what is predicted, and what is written again."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from support.bundles import tiny_bundle

from catalogproc.datasets.table_io import read_table, read_units
from catalogproc.errors import BundleError, ContractError, InputError, JobError
from catalogproc.features.table_inputs import TableInputs
from catalogproc.inference.model import Model
from catalogproc.network.bundle import Bundle
from catalogproc.network.predictor import Predictor
from catalogproc.network.star_tokens import StarTokens
from catalogproc.spectra.infer import InferResult, infer
from catalogproc.vocabulary import load_vocabulary

VOCABULARY = load_vocabulary()
FORMATS = ("csv", "ecsv", "parquet", "fits", "vot")
# Two that are one as floats.
LONG = (4611686018427387905, 4611686018427387907, 4611686018427387909, -9007199254740993)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return tiny_bundle(tmp_path_factory.mktemp("bundles") / "tiny")


def stars() -> pa.Table:
    """Four stars: well known, partly known, known by E(B-V) and age, not known at all."""
    nan = float("nan")
    return pa.table(
        {
            "source_id": pa.array(LONG),
            "name": ["007", "b", None, "d"],
            "teff": pa.array([4700.0, nan, None, None]),
            "e_teff": pa.array([50.0, 60.0, None, None]),
            "logg": pa.array([2.5, 2.1, None, None]),
            "bp0": pa.array([0.057, 0.055, None, nan]),
            "ebv": pa.array([0.1, None, 0.3, None]),
            "age": pa.array([None, None, 4.5, None]),
            "phot_g_mean_mag": pa.array([10.0, 12.0, 13.0, 14.0]),
        }
    )


def answered(bundle: Bundle, folder: Path, labels: str, table: pa.Table | None = None) -> pa.Table:
    pq.write_table(stars() if table is None else table, folder / "in.parquet")
    infer(folder / "in.parquet", labels.split(","), folder / "out.parquet", Predictor(bundle))
    return pq.read_table(folder / "out.parquet")


def test_answers_are_the_predictors(bundle: Bundle, tmp_path: Path) -> None:
    out = answered(bundle, tmp_path, "mass,m_h,rp3")
    values = np.full((4, len(VOCABULARY)), np.nan)
    for row, known in enumerate(
        (
            {"teff": 4700.0, "logg": 2.5, "bp0": 0.057, "logebv": np.log(0.1)},
            {"logg": 2.1, "bp0": 0.055},
            {"logebv": np.log(0.3), "log_age": np.log10(4.5e9)},
        )
    ):
        for name, value in known.items():
            values[row, VOCABULARY.column(name)] = value
    direct = Predictor(bundle).predict(StarTokens.typical(values), ["mass", "m_h", "rp3"])
    for k, label in enumerate(("mass", "m_h", "rp3")):
        mean, sigma = out[label].to_numpy(), out[f"e_{label}"].to_numpy()
        # To 1e-4 of sigma (network.predictor); a value may be near zero.
        assert (np.abs(mean - direct.mean[:, k])[:3] <= 1e-4 * sigma[:3]).all()
        np.testing.assert_allclose(sigma[:3], direct.sigma[:3, k], rtol=1e-5)
        assert np.isnan(mean[3])
        assert np.isnan(sigma[3])


def test_a_probability_has_no_uncertainty(bundle: Bundle, tmp_path: Path) -> None:
    out = answered(bundle, tmp_path, "rc_prob,mass")
    added = out.column_names[len(stars().column_names) :]
    assert added == ["rc_prob", "mass", "e_mass"]
    value = out["rc_prob"].to_numpy()
    raw = answered(bundle, tmp_path, "mass,rc_prob")["rc_prob"].to_numpy()
    assert ((value[:3] >= 0) & (value[:3] <= 1)).all()
    np.testing.assert_allclose(value, raw, rtol=1e-5)
    assert np.isnan(value[3])
    made = Model(bundle, Predictor(bundle)).predict(stars(), labels=["rc_prob", "mass"])
    assert made.column_names[-3:] == ["rc_prob", "mass", "e_mass"]
    np.testing.assert_allclose(made["rc_prob"].to_numpy(), value, rtol=1e-5)


def test_a_row_is_answered_as_if_it_stood_alone(bundle: Bundle, tmp_path: Path) -> None:
    together = answered(bundle, tmp_path, "mass,log_age")
    for row in range(3):
        alone = answered(bundle, tmp_path, "mass,log_age", stars().slice(row, 1))
        for name in ("mass", "e_mass", "log_age"):
            assert alone[name][0].as_py() == pytest.approx(together[name][row].as_py(), rel=1e-4)


@pytest.mark.parametrize("suffix", FORMATS)
def test_every_format_in_and_out(bundle: Bundle, tmp_path: Path, suffix: str) -> None:
    plain = answered(bundle, tmp_path, "mass,age")
    predictor, first = Predictor(bundle), tmp_path / f"first.{suffix}"
    result = infer(tmp_path / "in.parquet", ["mass", "age"], first, predictor)
    assert isinstance(result, InferResult)
    assert (result.rows, result.predicted) == (4, 3)
    # Its own output, less the answers, as the next one's input.
    again = read_table(tmp_path / f"first.{suffix}")
    assert again["source_id"].type == pa.int64()
    assert again["source_id"].to_pylist() == list(LONG)
    assert again["name"].to_pylist()[:2] == ["007", "b"]
    for name in ("mass", "age", "age_84"):
        np.testing.assert_allclose(
            again[name].to_numpy(zero_copy_only=False).astype(float),
            plain[name].to_numpy().astype(float), rtol=1e-6,
        )  # fmt: skip
    infer(tmp_path / f"first.{suffix}", ["m_h"], tmp_path / "second.parquet", Predictor(bundle))
    second = pq.read_table(tmp_path / "second.parquet")
    assert second["source_id"].to_pylist() == list(LONG)


def test_text_keeps_what_it_says(tmp_path: Path, bundle: Bundle) -> None:
    rows = (
        "id,code,teff,remark,count,wide,mixed",
        "1,007,4800,,3,9223372036854775809,1",
        "2,008,5e3,x,,1,2.5",
        "3,1e5,nan,y,9223372036854775807,2,-0.25",
    )
    (tmp_path / "in.csv").write_text("\n".join(rows) + "\n")
    infer(tmp_path / "in.csv", ["mass"], tmp_path / "out.csv", Predictor(bundle))
    infer(tmp_path / "in.csv", ["mass"], tmp_path / "out.parquet", Predictor(bundle))
    out = pq.read_table(tmp_path / "out.parquet")
    assert out["code"].to_pylist() == ["007", "008", "1e5"]
    assert out["id"].to_pylist() == [1, 2, 3]
    assert out["count"].to_pylist() == [3, None, 9223372036854775807]
    # Beyond 64 bits: as text, rather than as a float near it.
    assert out["wide"].to_pylist() == ["9223372036854775809", "1", "2"]
    assert out["mixed"].to_pylist() == [1.0, 2.5, -0.25]
    assert np.isfinite(out["mass"].to_numpy()[:2]).all()
    lines = (tmp_path / "out.csv").read_text().splitlines()
    assert lines[1].startswith("1,007,4800,,3,9223372036854775809,1,")
    assert lines[3].startswith("3,1e5,,y,9223372036854775807,2,-0.25,")


def test_ages_dust_and_distances_follow_from_their_tokens(bundle: Bundle, tmp_path: Path) -> None:
    out = answered(bundle, tmp_path, "age,log_age,ebv,logebv,dist,g_fakemag").slice(0, 3)
    value = {n: out[n].to_numpy().astype(float) for n in out.column_names if n not in ("name",)}
    # The table has ages and E(B-V) of its own: the answers stand beside them.
    log_age, e_log_age = value["log_age"], value["e_log_age"]
    np.testing.assert_allclose(value["age_model"], 10 ** (log_age - 9), rtol=1e-5)
    np.testing.assert_allclose(value["age_84"], 10 ** (log_age + e_log_age - 9), rtol=1e-5)
    # As in a catalog: half of the difference of the percentiles of a Gaussian log_age.
    np.testing.assert_allclose(
        value["e_age"], value["age_model"] * np.sinh(np.log(10) * e_log_age), rtol=1e-5
    )
    np.testing.assert_allclose(value["ebv_model"], np.exp(value["logebv"]), rtol=1e-5)
    np.testing.assert_allclose(
        value["ebv_16"], np.exp(value["logebv"] - value["e_logebv"]), rtol=1e-5
    )
    f = value["g_fakemag"]
    magnitude = np.array([10.0, 12.0, 13.0])
    np.testing.assert_allclose(value["dist"], 10 ** (0.2 * magnitude) / f, rtol=1e-5)
    assert (value["dist_16"] < value["dist"]).all()
    fields = {field.name: field.metadata[b"unit"].decode() for field in out.schema
              if b"unit" in (field.metadata or {})}  # fmt: skip
    assert (fields["age_model"], fields["ebv_16"], fields["dist"]) == ("Gyr", "mag", "kpc")
    assert fields["teff"] == "K"


def test_what_is_asked_and_given_stands_beside(bundle: Bundle, tmp_path: Path) -> None:
    out = answered(bundle, tmp_path, "teff")
    assert out["teff"].to_pylist()[0] == 4700.0
    assert {"teff_model", "e_teff_model"} < set(out.column_names)
    # FITS and its readers do not tell capitals apart.
    loud = stars().rename_columns([n.upper() for n in stars().column_names])
    out = answered(bundle, tmp_path, "teff,mass", loud)
    assert {"TEFF", "teff_model", "E_TEFF", "e_teff_model", "mass"} < set(out.column_names)


def test_the_result_names_the_columns_that_were_used(bundle: Bundle, tmp_path: Path) -> None:
    pq.write_table(stars(), tmp_path / "in.parquet")
    result = infer(tmp_path / "in.parquet", ["mass"], tmp_path / "o.csv", Predictor(bundle))
    assert result.used == ("teff", "e_teff", "logg", "bp0", "ebv", "age", "phot_g_mean_mag")
    assert result.ignored == ("source_id", "name")
    text = "\n".join(result.lines())
    assert "used as inputs: teff, e_teff, logg, bp0, ebv, age, phot_g_mean_mag" in text
    assert "not used: source_id, name" in text
    assert "1 row without any input" in text


def test_typical_errors_are_said_by_name(bundle: Bundle, tmp_path: Path) -> None:
    """Of a model that reads errors: which inputs had none, and of how many rows."""
    reading = tiny_bundle(tmp_path / "reading", errors=True)
    table = pa.table(
        {
            "teff": [4700.0, 4600.0, 4500.0, None],
            "e_teff": [50.0, 60.0, None, None],
            "logg": [2.5, 2.1, None, None],
            "bp0": [0.057, 0.055, 0.06, 0.05],
            "bp1": [0.01, None, None, None],
            "m_h": [0.0, 0.1, 0.2, 0.3],
            "e_m_h": [0.1, 0.1, 0.1, 0.1],
        }
    )
    pq.write_table(table, tmp_path / "in.parquet")
    out = tmp_path / "out.parquet"
    result = infer(tmp_path / "in.parquet", ["mass"], out, Predictor(reading))
    said = "teff (1 row), logg (2 rows)"
    assert result.typical_errors == {"BP coefficients": 4, "teff": 1, "logg": 2}
    assert f"typical errors taken, as none is given: BP coefficients (4 rows), {said}" in (
        result.lines()
    )
    facts = pq.read_schema(out).metadata
    assert facts[b"typical_errors"].decode() == f"BP coefficients (4 rows), {said}"
    made = Model(reading, Predictor(reading)).predict(table, labels=["mass"])
    assert made.schema.metadata[b"typical_errors"] == facts[b"typical_errors"]
    # A model that reads none says nothing.
    result = infer(tmp_path / "in.parquet", ["mass"], out, Predictor(bundle))
    assert not result.typical_errors
    assert b"typical_errors" not in pq.read_schema(out).metadata


def test_errors_that_are_given_are_read(tmp_path: Path) -> None:
    reading = tiny_bundle(tmp_path / "reading", errors=True)
    scaling = reading.error_scaling
    assert scaling is not None
    typical = np.exp(scaling.center[VOCABULARY.column("teff")])
    answers = []
    for error in (None, typical, 20 * typical):
        columns = {"teff": [4700.0], "logg": [2.5], "e_logg": [0.1]}
        columns |= {} if error is None else {"e_teff": [error]}
        out = answered(reading, tmp_path, "mass", pa.table(columns))
        answers.append(out["mass"][0].as_py())
    assert answers[0] == pytest.approx(answers[1], rel=1e-5)
    assert abs(answers[2] - answers[1]) > 1e-3


def test_a_token_counts_before_what_could_be_made_of_another_column() -> None:
    columns = {"ebv": [0.1], "logebv": [-3.0], "Age": [4.0], "e_ebv": [0.1]}
    found = TableInputs.of(pa.table(columns), VOCABULARY)
    assert found.named == {"logebv": "logebv", "log_age": "Age"}
    assert found.used == ("logebv", "Age")
    with pytest.raises(ContractError, match=r"two columns are the same token\n.*\n.*TEFF and Teff"):
        TableInputs.of(pa.table({"TEFF": [1.0], "Teff": [1.0]}), VOCABULARY)


def test_questions_that_cannot_be_answered(bundle: Bundle, tmp_path: Path) -> None:
    table = tmp_path / "in.parquet"
    pq.write_table(stars(), table)
    out = tmp_path / "out.csv"
    with pytest.raises(
        JobError, match=r"labels that the model does not have\n.*bp0 … bp54.*\n.*vsini"
    ):
        infer(table, ["mass", "vsini"], out, Predictor(bundle))
    with pytest.raises(JobError, match="no label is requested"):
        infer(table, [" "], out, Predictor(bundle))
    with pytest.raises(JobError, match=r"file extension(.|\n)*.*\.parquet"):
        infer(table, ["mass"], tmp_path / "out.xlsx", Predictor(bundle))
    pq.write_table(stars().drop_columns(["phot_g_mean_mag"]), table)
    with pytest.raises(JobError, match=r"needs the apparent magnitude\n.*phot_g_mean_mag"):
        infer(table, ["dist"], out, Predictor(bundle))
    pq.write_table(pa.table({"source_id": [1], "ra": [2.0]}), table)
    with pytest.raises(ContractError, match=r"no column that the model can(.|\n)*source_id, ra"):
        infer(table, ["mass"], out, Predictor(bundle))
    pq.write_table(pa.table({"teff": ["hot", None]}), table)
    with pytest.raises(ContractError, match=r"must hold numbers\n.*\n.*'hot'\n.*teff"):
        infer(table, ["mass"], out, Predictor(bundle))
    (tmp_path / "broken.csv").write_text("a,teff\n1,4800\n2\n")
    with pytest.raises(InputError, match=r"a row of the table is broken\n.*\n.*row 1"):
        infer(tmp_path / "broken.csv", ["mass"], out, Predictor(bundle))
    assert not out.exists()


def test_a_label_that_a_model_was_not_trained_for(tmp_path: Path, bundle: Bundle) -> None:
    from dataclasses import replace

    pq.write_table(stars(), tmp_path / "in.parquet")
    narrow = replace(bundle, requestable=("teff",))
    with pytest.raises(BundleError, match="not trained to predict"):
        infer(tmp_path / "in.parquet", ["age"], tmp_path / "o.csv", Predictor(narrow))


def test_units_of_other_columns_are_kept(bundle: Bundle, tmp_path: Path) -> None:
    from astropy.table import Table

    table = Table({"teff": [4800.0], "distance_bj": [1.5], "plain": [1]})
    table["distance_bj"].unit = "kpc"
    for suffix in ("fits", "vot"):
        form = {"format": "votable"} if suffix == "vot" else {}
        table.write(tmp_path / f"in.{suffix}", **form)
        infer(tmp_path / f"in.{suffix}", ["mass"], tmp_path / f"out.{suffix}", Predictor(bundle))
        back = Table.read(tmp_path / f"out.{suffix}")
        assert str(back["distance_bj"].unit) == "kpc"
        assert str(back["mass"].unit) == "solMass"
        assert back["plain"].unit is None
    infer(tmp_path / "out.fits", ["m_h"], tmp_path / "mid.parquet", Predictor(bundle))
    infer(tmp_path / "mid.parquet", ["logg"], tmp_path / "end.vot", Predictor(bundle))
    assert str(Table.read(tmp_path / "end.vot")["distance_bj"].unit) == "kpc"


@pytest.mark.parametrize("ending", ["parquet", "ecsv", "fits", "vot", "nested.parquet"])
def test_units_and_masks_of_a_file_are_those_of_the_table(
    ending: str, bundle: Bundle, tmp_path: Path
) -> None:
    """As astropy writes them; in Parquet its units stand in a header of its own."""
    from astropy import units
    from astropy.table import MaskedColumn, Table

    path = tmp_path / f"stars.{ending}"
    teff = MaskedColumn([4.8, 1.0, 5.1], mask=[False, True, False], unit=units.kK)
    table = Table({"teff": teff, "logg": [2.5, 2.0, 1.5]})
    if ending == "nested.parquet":
        field = pa.field("teff", pa.float64(), metadata={"unit": "kK"})
        values = pa.array([4.8, None, 5.1])
        struct = pa.StructArray.from_arrays([values], fields=[field])
        pq.write_table(pa.table({"star": struct, "logg": [2.5, 2.0, 1.5]}), path)
    else:
        table.write(path, **({"format": "votable"} if ending == "vot" else {}))
    inputs = TableInputs.of(read_table(path), VOCABULARY, units=read_units(path), where=path)
    np.testing.assert_allclose(inputs.given["teff"][0], [4800.0, np.nan, 5100.0])
    np.testing.assert_array_equal(inputs.given["logg"][0], [2.5, 2.0, 1.5])


def test_a_column_that_cannot_be_read_is_refused_with_its_name(tmp_path: Path) -> None:
    pq.write_table(pa.table({"a": [[[1.0, 2.0], [3.0]]]}), tmp_path / "a.parquet")
    with pytest.raises(InputError, match=r"cannot be read(.|\n)*column a"):
        read_table(tmp_path / "a.parquet")


def test_floats_that_a_votable_writes_as_whole_numbers_are_floats(tmp_path: Path) -> None:
    """So an identifier that was stored as a float is refused by infer as it is by a run."""
    path = tmp_path / "floats.xml"
    path.write_text(
        '<VOTABLE version="1.4" xmlns="http://www.ivoa.net/xml/VOTable/v1.3"><RESOURCE><TABLE>'
        '<FIELD name="source_id" datatype="double"/><FIELD name="n" datatype="long"/>'
        "<DATA><TABLEDATA><TR><TD>17351668087552</TD><TD>7</TD></TR></TABLEDATA></DATA>"
        "</TABLE></RESOURCE></VOTABLE>"
    )
    assert read_table(path).schema.types == [pa.float64(), pa.int64()]
