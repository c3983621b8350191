"""Each quality flag on a row that raises no other flag."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from catalogproc.flags import load_flags, load_input_flags
from catalogproc.inference import input_flags, quality_flags
from catalogproc.inference.quality_flags import Evidence, flags, good_mass_age, good_params
from catalogproc.release import load_release

DR3 = load_release("dr3")

# A red clump star of the solar neighbourhood, observed well.
CLEAN = {
    "n_tokens": 40, "phot_g_mean_mag": 12.0, "bp_rp": 1.25, "ruwe": 1.0, "tgt_box_nout": 0,
    "parallax_zpc": 1.0, "e_parallax": 0.02, "parallax_zp": -0.03, "plx_nsig": 0.3,
    "has_tmass": True, "ebv": 0.1, "ebv_84": 0.12, "teff": 4750.0, "e_teff": 50.0,
    "logg": 2.5, "e_logg": 0.1,
    "m_h": -0.1, "e_m_h": 0.05, "alpha_m": 0.1, "e_alpha_m": 0.02,
    "mass": 1.2, "e_mass": 0.1, "log_age": 9.7, "e_log_age": 0.1,
    "age": 5.0, "e_age": 1.2, "ood_mahal": 7.0, "xp_chi2_red": 0.9, "in_training": False,
}  # fmt: skip
LIMITS = {
    "teff": (3500.0, 6500.0), "logg": (0.0, 4.5), "m_h": (-2.5, 0.5), "mass": (0.6, 5.0),
    "log_age": (8.0, 10.14), "alpha_m": (-0.2, 0.5),
}  # fmt: skip
EVIDENCE = Evidence(
    bp=np.array([True]), rp=np.array([True]),
    excess_factor=np.array([1.2]), blended_fraction=np.array([0.05]),
    multiple_or_variable=np.array([False]),
    synthetic=np.array([False]), failed=np.array([False]), limits=LIMITS,
    nonlinear=np.array([False]), beyond_box=np.array([0.0]), latent_limit=12.0, margin=0.3,
    chi2_limit=3.0,
)  # fmt: skip


def columns(**changed: object) -> dict[str, np.ndarray]:
    return {
        name: np.atleast_1d(
            np.asarray(value, np.float32) if isinstance(value, float) else np.asarray(value)
        )
        for name, value in (CLEAN | changed).items()
    }


def evidence(**changed: object) -> Evidence:
    return replace(
        EVIDENCE,
        **{
            name: value
            if name in ("latent_limit", "margin", "chi2_limit")
            else np.atleast_1d(value)
            for name, value in changed.items()
        },
    )


def raised(changed: dict[str, object] | None = None, **changes: object) -> list[str]:
    value = flags(columns(**(changed or {})), evidence(**changes))
    assert value.dtype == np.int32
    return load_flags().words(int(value[0]))


def test_a_clean_star_raises_no_flag():
    assert raised() == []


# name: (value that raises it, value just short of it)
BY_COLUMN = {
    "FEW_TOKENS": ({"n_tokens": 12}, {"n_tokens": 13}),
    "COLOUR_RANGE": ({"bp_rp": 4.0}, {"bp_rp": 3.99}),
    "RUWE": ({"ruwe": 1.4}, {"ruwe": 1.39}),
    "PLX_BAD": ({"e_parallax": 0.11}, {"e_parallax": 0.1}),
    "PLX_INCONSISTENT": ({"plx_nsig": -10.1}, {"plx_nsig": -9.9}),
    "NO_TMASS": ({"has_tmass": False}, {"has_tmass": True}),
    "HIGH_EBV": ({"ebv": 1.51}, {"ebv": 1.5}),
    "EVOL_DOMAIN": ({"m_h": -0.51}, {"m_h": -0.5}),
    "LABEL_EDGE": ({"mass": 0.69}, {"mass": 0.71}),
    "UNC_TEFF": ({"e_teff": 501.0}, {"e_teff": 500.0}),
    "UNC_LOGG": ({"e_logg": 0.51}, {"e_logg": 0.5}),
    "UNC_MH": ({"e_m_h": 0.51}, {"e_m_h": 0.5}),
    "UNC_MASS": ({"mass": 2.0, "e_mass": 0.61}, {"mass": 2.0, "e_mass": 0.59}),
    "UNC_AGE": ({"e_age": 2.51}, {"e_age": 2.49}),
    "AGE_LIMIT": ({"age": 13.9}, {"age": 13.7}),
    "OOD_LATENT": ({"ood_mahal": 12.1}, {"ood_mahal": 11.9}),
    "SPEC_CHI2": ({"xp_chi2_red": 3.1}, {"xp_chi2_red": 2.9}),
    "IN_TRAINING": ({"in_training": True}, {"in_training": False}),
}
BY_EVIDENCE = {
    "NO_XP": ({"bp": False, "rp": False}, {}),
    "XP_ONE_BAND": ({"bp": False}, {}),
    "BPRP_EXCESS": ({"excess_factor": 2.0}, {"excess_factor": 1.99}),
    "XP_BLEND": ({"blended_fraction": 0.51}, {"blended_fraction": 0.5}),
    "NSS_OR_VAR": ({"multiple_or_variable": True}, {}),
    "INFER_FAIL": ({"failed": True}, {}),
    "XP_PHOTOMETRY": ({"synthetic": True}, {}),
    "NONLINEAR": ({"nonlinear": True}, {}),
    "XP_BOX": ({"beyond_box": 0.31}, {"beyond_box": 0.29}),
}
OTHERWISE = {"G_RANGE", "NOT_GIANT", "MAY_BE_DWARF"}  # tested by themselves below


def test_every_declared_flag_has_a_test_and_a_rule():
    names = {flag.name for flag in load_flags().flags}
    assert names == set(BY_COLUMN) | set(BY_EVIDENCE) | OTHERWISE
    assert set(quality_flags.RULES) == names


@pytest.mark.parametrize("name", BY_COLUMN)
def test_a_column_raises_only_its_flag(name):
    beyond, within = BY_COLUMN[name]
    assert raised(beyond) == [name]
    assert raised(within) == []


@pytest.mark.parametrize("name", BY_EVIDENCE)
def test_evidence_raises_only_its_flag(name):
    beyond, within = BY_EVIDENCE[name]
    assert raised(**beyond) == [name]
    assert raised(**within) == []


@pytest.mark.parametrize(
    ("magnitude", "words"),
    [(6.0, ["G_RANGE"]), (6.01, []), (17.49, []), (17.5, ["G_RANGE"])],
)
def test_magnitude_range(magnitude, words):
    parallax = 10.0 ** (0.2 * (12.0 - magnitude))  # the same star, farther away
    assert raised({"phot_g_mean_mag": magnitude, "parallax_zpc": parallax}) == words


def test_a_dwarf_is_flagged_by_log_g():
    # Teff 5800 K, logg 4.4 is inside the domain of the mass labels: only these flags come.
    dwarf = raised({"teff": 5800.0, "logg": 4.4, "e_logg": 0.05})
    assert dwarf == ["NOT_GIANT", "MAY_BE_DWARF"]
    assert raised({"teff": 5200.0, "logg": 3.45, "e_logg": 0.04}) == []


def test_a_giant_whose_errors_reach_dwarfs_may_be_one():
    assert raised({"teff": 5200.0, "logg": 3.45, "e_logg": 0.06}) == ["MAY_BE_DWARF"]
    assert raised({"teff": 5700.0, "logg": 3.3, "e_logg": 0.1, "e_teff": 90.0}) == []
    assert raised({"teff": 5700.0, "logg": 3.3, "e_logg": 0.1, "e_teff": 101.0}) == ["MAY_BE_DWARF"]


def test_a_dwarf_with_a_giant_s_predicted_log_g_is_flagged_by_its_parallax():
    # At 250 pc this star has M_G 5 before dust: log g 4.1. At 1 kpc it is in the clump.
    assert raised({"parallax_zpc": 4.0}) == ["NOT_GIANT"]
    # So it may be still, if the parallax is that much too large.
    assert raised({"parallax_zpc": 4.0, "e_parallax": 0.99}) == ["PLX_BAD"]
    # Or behind dust.
    assert raised({"parallax_zpc": 4.0, "ebv_84": 1.4}) == []
    assert raised({"parallax_zpc": -0.1}) == []


def test_log_g_from_parallax_is_right_for_the_sun():
    sun = columns(phot_g_mean_mag=4.67, parallax_zpc=100.0, e_parallax=0.0, ebv_84=0.0, teff=5772.0)
    assert quality_flags.gravity_by_parallax(sun, DR3) == pytest.approx(4.438, abs=1e-3)
    # Ten times its luminosity at its Teff: one less.
    bright = sun | {"phot_g_mean_mag": np.array([2.17])}
    assert quality_flags.gravity_by_parallax(bright, DR3) == pytest.approx(3.438, abs=1e-3)


def test_blue_stars_are_out_of_the_colour_range_too():
    assert raised({"bp_rp": 0.0}) == ["COLOUR_RANGE"]


@pytest.mark.parametrize("label", quality_flags.EDGE_LABELS)
@pytest.mark.parametrize("side", [0, 1])
def test_label_edge_on_both_sides(label, side):
    error = 0.01
    value = LIMITS[label][side] + (0.5 * error if side == 0 else -0.5 * error)
    assert "LABEL_EDGE" in raised({label: value, f"e_{label}": error})
    value = LIMITS[label][side] + (2 * error if side == 0 else -2 * error)
    assert "LABEL_EDGE" not in raised({label: value, f"e_{label}": error})


def test_younger_than_any_training_star():
    words = raised({"log_age": 7.99, "age": 10**7.99 / 1e9, "e_age": 0.0})
    assert words == ["LABEL_EDGE", "AGE_LIMIT"]


@pytest.mark.parametrize("changed", [{"parallax_zp": np.nan}, {"e_parallax": np.nan}])
def test_an_unknown_parallax_is_a_bad_one(changed):
    assert raised(changed) == ["PLX_BAD"]


def test_every_declared_input_flag_has_a_rule():
    assert set(input_flags.RULES) == {flag.name for flag in load_input_flags().flags}


def test_unknown_values_raise_only_plx_bad():
    nothing = {name: np.nan for name, value in CLEAN.items() if isinstance(value, float)}
    words = raised(nothing, excess_factor=np.nan, blended_fraction=np.nan)
    assert words == ["PLX_BAD"]


@pytest.mark.parametrize(
    ("teff", "logg"),
    [
        (4400, 4.2), (6000, 4.95), (6850, 4.5), (5600, 3.0), (3900, 1.05), (4700, 1.5),
        (4850, 1.95), (4700, 3.3),
    ],
)  # fmt: skip
def test_each_edge_of_the_mass_domain(teff, logg):
    """One star outside each edge of the polygon, in the order of its publication."""
    assert quality_flags.outside_mass_domain(np.array([teff]), np.array([logg]), np.array([0.0]))[0]


def test_the_mass_domain_contains_the_giant_branch_and_the_clump():
    teff = np.array([4000.0, 4300.0, 4600.0, 4800.0, 5000.0, 5800.0])
    logg = np.array([1.2, 1.6, 2.3, 2.5, 3.0, 4.4])
    inside = ~quality_flags.outside_mass_domain(teff, logg, np.zeros(6))
    assert inside.all()


def test_the_mass_domain_equals_the_published_definition():
    """The polygon written with if-statements, on a grid of the Kiel diagram."""

    def plain(t: float, g: float, m: float) -> bool:
        if g > 4.9 or t > 6800 or g < 1.1 or m < -0.5:
            return True
        if t < 4500 and g > 3:
            return True
        if t > 5500 and g < 3.1:
            return True
        if g < 0.000906 * t - 2.525:
            return True
        if g < 2 and 4800 < t < 5500:
            return True
        return 0.002 * t - 6.2 < g < 4.1

    stars = [
        (t, g, m)
        for t in np.arange(3500, 7000, 47.0)
        for g in np.arange(0, 5.2, 0.093)
        for m in (-0.6, 0.0)
    ]
    wanted = [plain(*star) for star in stars]
    assert quality_flags.outside_mass_domain(*np.array(stars).T).tolist() == wanted


def test_the_summaries_follow_the_declared_masks():
    declared = load_flags()
    for flag in declared.flags:
        value = np.array([flag.value], np.int32)
        assert good_params(value)[0] == (not flag.value & declared.good_params)
        assert good_mass_age(value)[0] == (not flag.value & declared.good_mass_age)
    clear = np.zeros(1, np.int32)
    assert good_params(clear)[0]
    assert good_mass_age(clear)[0]
    no_photometry = np.array([declared.mask("PLX_BAD", "NO_TMASS", "XP_PHOTOMETRY")], np.int32)
    assert good_mass_age(no_photometry)[0]


def test_good_mass_age_does_not_depend_on_the_predicted_mass_and_age():
    """A sample that is selected by the answer is biased at each true age and mass."""
    rng, n = np.random.default_rng(3), 2_000
    age = rng.uniform(0.05, 20.0, n)
    answers = {
        "mass": rng.uniform(0.3, 8.0, n), "e_mass": rng.uniform(0.01, 5.0, n),
        "log_age": np.log10(age) + 9.0, "e_log_age": rng.uniform(0.01, 1.0, n),
        "age": age, "e_age": rng.uniform(0.01, 30.0, n),
    }  # fmt: skip
    clean = {name: np.broadcast_to(value, n) for name, value in columns().items()}
    several = {
        name: np.broadcast_to(value, n) if isinstance(value, np.ndarray) else value
        for name, value in vars(EVIDENCE).items()
    }
    value = flags(clean | answers, Evidence(**several))
    assert len(set(value.tolist())) > 10  # UNC_AGE, AGE_LIMIT and others are still set
    assert good_mass_age(value).all()


def test_limits_that_a_bundle_lacks_raise_no_flag():
    assert raised({"ood_mahal": 1e9}, latent_limit=np.inf) == []
    assert raised({"ood_mahal": np.nan, "xp_chi2_red": np.nan}) == []
    assert raised({"xp_chi2_red": 2.1}, chi2_limit=0.0) == ["SPEC_CHI2"]
    assert raised({"xp_chi2_red": 1.9}, chi2_limit=0.0) == []
    assert raised(beyond_box=0.01, margin=0.0) == ["XP_BOX"]


def test_flags_of_a_row_do_not_depend_on_others():
    many = {name: np.repeat(value, 3) for name, value in columns().items()}
    many["ruwe"] = np.array([1.0, 2.0, 1.0], np.float32)
    changes = {
        name: np.repeat(getattr(EVIDENCE, name), 3)
        for name in ("bp", "rp", "excess_factor", "blended_fraction",
                     "multiple_or_variable", "synthetic", "failed", "nonlinear", "beyond_box")
    }  # fmt: skip
    value = flags(many, replace(EVIDENCE, **changes))
    assert value.tolist() == [0, load_flags()["RUWE"].value, 0]
