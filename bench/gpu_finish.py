"""`make gpu-finish`: what came back from the GPU machine becomes a page and, perhaps, a model.

The pieces are joined; the model is calibrated on validation stars; both it and the default model
are evaluated on the test part; docs/performance.md gets the GPU's rows. The default model is
replaced only with --adopt, and only by a better one.
"""

from __future__ import annotations

import argparse
import json
import math
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.gpu_page import replace_section, section
from bench.gpu_pieces import LIST, join_pieces
from bench.gpu_training import STAGES, job_of
from bench.machine import ROOT
from catalogproc.evaluation.panel_scores import MODEL
from catalogproc.evaluation.real_giants import evaluate_giants
from catalogproc.evaluation.real_giants_criteria import CRITERIA, criteria
from catalogproc.evaluation.real_giants_page import write_real_giants
from catalogproc.evaluation.real_giants_result import RealGiants
from catalogproc.evaluation.scorecard import figure
from catalogproc.evaluation.xgboost_baseline import Trees
from catalogproc.io.atomic import write_atomic
from catalogproc.network.bundle import Bundle, load_bundle
from catalogproc.resources import shipped
from catalogproc.training.config import TrainSpec
from catalogproc.training.model_card import write_card
from catalogproc.training.train_bundle import finish_bundle
from catalogproc.training.training_data import load_training_data

PAGE = ROOT / "docs" / "performance.md"


@dataclass(frozen=True)
class Verdict:
    """A new model against the default one.

    Attributes
    ----------
    ratio
        Geometric mean of the ratios of the scatters of CRITERIA, new over default.
    passed, passed_before
        Number of criteria of `evaluate` that each fulfils.
    lines
        The comparison as text.
    """

    ratio: float
    passed: int
    passed_before: int
    lines: tuple[str, ...]

    @property
    def is_better(self) -> bool:
        """Whether scatters are smaller and no fewer criteria are fulfilled."""
        return self.ratio < 1.0 and self.passed >= self.passed_before


def finish_model(found: Path, data: Path, output: Path) -> Bundle:
    """Join and calibrate the model that came back, and write its card.

    Parameters
    ----------
    found
        What came back.
    data
        The dataset that was packed.
    output
        The folder of the bundle; it is replaced.
    """
    shutil.rmtree(output, ignore_errors=True)
    about = join_pieces(found, output)
    bundle = load_bundle(output)
    stage = next(stage for stage in STAGES if stage.job == about["stage"])
    job = job_of(stage, float(about["now"]["seconds"]), bool(about["tiny"]))
    spec = TrainSpec(job, output.parent, data if job.data else None)
    stars = load_training_data(spec, bundle, "cpu")
    bundle = finish_bundle(bundle, stars)
    write_card(bundle, job, stars.test, stars.intended_use)
    return load_bundle(output)


def compare(new: RealGiants, default: RealGiants) -> Verdict:
    """Return whether a model is better than another on the same stars.

    Parameters
    ----------
    new, default
        Their evaluations.
    """
    scatters = [
        {
            row.quantity: row.by_method[MODEL].scatter
            for row in one.scores
            if row.quantity in CRITERIA
        }
        for one in (new, default)
    ]
    ratios = [scatters[0][name] / scatters[1][name] for name in scatters[0]]
    passed, before = (sum(item.passed for item in criteria(one)) for one in (new, default))
    ratio = math.exp(sum(map(math.log, ratios)) / len(ratios)) if ratios else math.inf
    lines = [
        f"{name}: scatter {figure(scatters[0][name])}, default {figure(scatters[1][name])}"
        for name in scatters[0]
    ]
    lines.append(f"criteria fulfilled: {passed}, default {before}")
    return Verdict(ratio, passed, before, tuple(lines))


def judge(bundle: Bundle, data: Path, output: Path) -> Verdict:
    """Evaluate a model and the default one on the test part of a dataset.

    Parameters
    ----------
    bundle
        The model.
    data
        The dataset.
    output
        Gets a folder with the pages of each.
    """
    trees = Trees.preset(True, True, output / "trees")
    found = []
    for name, model in (("new", bundle), ("default", load_bundle("default"))):
        found.append(evaluate_giants(model, data, trees, "cpu"))
        (output / name).mkdir(parents=True, exist_ok=True)
        write_real_giants(found[-1], output / name)
    return compare(*found)


def adopt(bundle: Bundle) -> Path:
    """Replace the default model of this checkout, and return its folder.

    Parameters
    ----------
    bundle
        The new default.
    """
    models = shipped("model")
    folder = models / bundle.name
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(bundle.path, folder)
    write_atomic(models / "DEFAULT", f"{bundle.name}\n".encode())
    return folder


def _results(found: Path) -> dict[str, Any]:
    """Return the content of every JSON file that came back, by its name."""
    return {path.name: json.loads(path.read_text()) for path in sorted(found.rglob("*.json"))}


def _said(verdict: Verdict, bundle: Bundle, adopted: bool) -> Iterator[str]:
    yield from verdict.lines
    if not verdict.is_better:
        yield f"{bundle.name} {bundle.hash[:8]} is no better than the default model, which stays"
    elif adopted:
        yield f"{bundle.name} {bundle.hash[:8]} is the default model now"
        yield "now: make evaluation; make test; and write docs/training.md and CHANGELOG.md"
    else:
        yield f"{bundle.name} {bundle.hash[:8]} is better; ADOPT=yes makes it the default model"


def main() -> None:
    parser = argparse.ArgumentParser(prog="make gpu-finish", description=__doc__)
    parser.add_argument("--found", type=Path, required=True, help="what came back")
    parser.add_argument("--data", type=Path, required=True, help="the dataset that was packed")
    parser.add_argument("--output", type=Path, required=True, help="folder of model and pages")
    parser.add_argument("--page", type=Path, default=PAGE, help="docs/performance.md")
    parser.add_argument("--adopt", action="store_true", help="a better model becomes the default")
    options = parser.parse_args()
    results = _results(options.found)
    replace_section(options.page, section(results))
    print(f"{options.page}: written")
    if LIST not in results:
        print("no model came back")
        return
    bundle = finish_model(options.found, options.data, options.output / "model")
    verdict = judge(bundle, options.data, options.output)
    adopted = options.adopt and verdict.is_better
    if adopted:
        adopt(bundle)
    print(*_said(verdict, bundle, adopted), sep="\n")


if __name__ == "__main__":
    main()
