"""Examples on the help pages. tests/cli/test_examples.py runs the first of each command."""

from __future__ import annotations

EXAMPLES: dict[str, tuple[str, ...]] = {
    "demo": ("catalogproc demo --output output/demo",),
    "run": (
        "catalogproc run --input examples/gaia_xp/*.parquet --job demo --output output/field",
        "catalogproc run --input 'xp/*.csv.gz' --gaia-source gaia_source.fits --output output/mine",
        "catalogproc run --input s3://bucket/xp/*.parquet --workers 4 --output s3://bucket/catalog",
    ),
    "check": (
        "catalogproc check --input examples/gaia_xp/*.parquet --job demo --output output/new",
    ),
    "plan": ("catalogproc plan --input examples/gaia_xp/*.parquet --job demo --output output/new",),
    "verify": ("catalogproc verify output/demo",),
    "status": (
        "catalogproc status output/demo",
        "catalogproc status output/demo --watch",
    ),
    "export": (
        "catalogproc export output/demo --output giants.fits",
        "catalogproc export output/demo --where 'good_mass_age and m_h > -0.5' --output good.vot",
        "catalogproc export output/demo --columns source_id,mass,e_mass --output masses.csv",
    ),
    "report": ("catalogproc report output/demo",),
    "explain": ("catalogproc explain output/demo 36684247685728640",),
    "diff": ("catalogproc diff output/demo output/again --output output/diff",),
    "crosscheck": (
        "catalogproc crosscheck output/demo --catalog flame.fits --output output/crosscheck",
        "catalogproc crosscheck output/demo --members clusters.csv --output output/crosscheck",
    ),
    "fetch": (
        "catalogproc fetch --select giants --healpix 0-3 --show-adql --output archive",
        "catalogproc fetch --healpix 0-3 --output archive",
        "catalogproc fetch --ids my_stars.csv --output archive",
    ),
    "convert": (
        "catalogproc convert examples/gaia_xp/xp_continuous_000.parquet --output output/parquet",
    ),
    "describe": (
        "catalogproc describe catalog",
        "catalogproc describe examples/gaia_xp/xp_continuous_000.parquet",
        "catalogproc describe output/demo",
    ),
    "simulate": ("catalogproc simulate --stars 100 --seed 1 --output output/simulated",),
    "dust": ("catalogproc dust",),
    "infer": (
        "catalogproc infer --input examples/giants/xp_canonical.parquet --labels mass,age "
        "--output ages.parquet",
    ),
    "generate": (
        "catalogproc generate --teff 4700 --logg 2.5 --m-h 0 --ebv 0.05 --output star.ecsv "
        "--flux flux.ecsv --plot star.png",
        "catalogproc generate --isochrone 5,-0.2 --ebv 0.02 --absolute --plot branch.png",
    ),
    "inpaint": (
        "catalogproc inpaint --input examples/gaia_xp/xp_continuous_000.parquet --from rp --to bp "
        "--output blue.parquet",
    ),
    "embed": (
        "catalogproc embed --input examples/gaia_xp/xp_continuous_000.parquet "
        "--output vectors.parquet",
    ),
    "train": (
        "catalogproc train --job train-tiny --output output/tiny",
        "catalogproc train --data output/apogee-xp --from giants --job train-fine-tune "
        "--output output/mine",
    ),
    "evaluate": (
        "catalogproc evaluate --stars 1000 --quick --figures none --output output/evaluation",
        "catalogproc evaluate --data output/apogee-xp --output output/evaluation",
    ),
    "calibrate": ("catalogproc calibrate --model tiny --stars 5000 --output output/calibrated",),
    "dataset apogee-xp": ("catalogproc dataset apogee-xp --output output/apogee-xp",),
    "dataset example-giants": (
        "catalogproc dataset example-giants --data output/apogee-xp --output output/giants",
    ),
    "dataset lb24": (
        "catalogproc dataset lb24 training_set.h5 testing_set.h5 "
        "--distmass APOGEE_DistMass-DR17_v1.6.1.fits --output output/lb24",
    ),
    "dataset build": (
        "catalogproc dataset build --apogee allStar.fits --distmass distmass.fits "
        "--gaia-source gaia/*.parquet --xp xp/*.parquet --output output/surveys",
    ),
    "dataset carry": (
        "catalogproc dataset carry output/apogee-xp --xp dr4_xp/*.zip "
        "--crosswalk dr3_neighbourhood.parquet --release dr4.toml --output output/dr4",
    ),
    "release add": ("catalogproc release add --like dr4 --design matrices.npz --output dr4.toml",),
    "bridge fit": (
        "catalogproc bridge fit --from dr4_pairs.parquet --to dr3_xp.parquet --output bridge.toml",
    ),
    "bridge check": ("catalogproc bridge check bridge.toml --from dr4_xp.zip --to dr3_xp.parquet",),
}
"""Examples by command, in the order in which they are shown."""


def epilog(command: str) -> str:
    """Return the examples of a command, one a line.

    Parameters
    ----------
    command
        Its words, as "bridge fit".
    """
    return "\n".join(EXAMPLES[command])
