"""deploy/: the SLURM launcher starts workers; manifests and images are valid and consistent."""

from __future__ import annotations

import importlib.util
import os
import re
import shlex
import stat
import subprocess
import sys
import tomllib
from pathlib import Path
from types import ModuleType
from typing import Any

import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest
import yaml
from support.bundles import tiny_bundle
from support.paths import ROOT

from catalogproc.rundir.receipts import read_receipts
from catalogproc.rundir.verify import verify

DEPLOY = ROOT / "deploy"


def launcher() -> ModuleType:
    spec = importlib.util.spec_from_file_location("slurm_run", DEPLOY / "slurm" / "run.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def documents(path: Path) -> list[dict[str, Any]]:
    return list(yaml.safe_load_all(path.read_text(encoding="utf-8")))


# ---- SLURM


def test_the_job_script_requests_the_resources_of_a_worker(tmp_path: Path) -> None:
    words = ["--workers", "3", "--partition", "gpu", "--account", "astro", "--gpu", "--cores", "6"]
    words += ["--memory", "20GB", "--directive=--constraint=h100", "--show"]
    command = [sys.executable, str(DEPLOY / "slurm" / "run.py"), *words]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    script = done.stdout
    for line in ("-p gpu", "-A astro", "--cpus-per-task=6", "--gres=gpu:1", "--constraint=h100",
                 "-t 04:00:00"):  # fmt: skip
        assert f"#SBATCH {line}\n" in script, line
    assert "export OMP_NUM_THREADS=6" in script
    assert "--nthreads 1" in script
    assert "--nworkers" not in script
    syntax = subprocess.run(["bash", "-n"], input=script, text=True, capture_output=True)
    assert syntax.returncode == 0, syntax.stderr


def test_arguments_after_the_dashes_are_passed_to_the_run() -> None:
    chosen, arguments = launcher().options(
        ["--workers", "2", "--", "--input", "a b", "--output", "o"]
    )
    assert chosen.workers == 2
    assert arguments == ["--input", "a b", "--output", "o"]


def test_a_run_on_workers_that_sbatch_started(tmp_path: Path) -> None:
    # This sbatch copies the script, as SLURM does, and starts it at once, as on a free node.
    bin_folder = tmp_path / "bin"
    bin_folder.mkdir()
    submitted = tmp_path / "submitted"
    fake = {
        "sbatch": f'#!/bin/bash\ncp "$1" "{submitted}.$$"\n'
        f'nohup bash "{submitted}.$$" >/dev/null 2>&1 &\n'
        "echo Submitted batch job $!\n",
        "scancel": '#!/bin/bash\nfor job in "$@"; do pkill -P "$job"; kill "$job"; done\nexit 0\n',
    }
    for name, text in fake.items():
        path = bin_folder / name
        path.write_text(text)
        path.chmod(path.stat().st_mode | stat.S_IXUSR)
    bundle = tiny_bundle(tmp_path / "model")
    # Few stars without error propagation: most of the time goes into the start of the processes.
    spectra = pq.read_table(ROOT / "examples" / "gaia_xp" / "xp_continuous_000.parquet")
    pq.write_table(spectra.slice(0, 100), tmp_path / "xp.parquet", row_group_size=25)
    job = tmp_path / "small.toml"
    job.write_text('kind = "run"\nchunk_rows = 25\npropagation = "none"\n')
    output = tmp_path / "out"
    command = [
        sys.executable, str(DEPLOY / "slurm" / "run.py"), "--workers", "2", "--cores", "1",
        "--memory", "2GB", "--interface", "lo", "--log", str(tmp_path / "logs"), "--",
        "--input", str(tmp_path / "xp.parquet"), "--output", str(output),
        "--model", str(bundle.path), "--job", str(job),
    ]  # fmt: skip
    environment = os.environ | {
        "PATH": f"{bin_folder}:{os.environ['PATH']}", "PYTHONPATH": str(ROOT),
    }  # fmt: skip
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=250, cwd=tmp_path, env=environment
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert len(list(tmp_path.glob("submitted.*"))) == 2
    assert len(read_receipts(output)) == 4
    assert verify(output).rows_written == 100
    assert ds.dataset(output / "catalog").count_rows() == 100


# ---- Kubernetes


def test_manifests_are_valid_for_kubernetes() -> None:
    validate = pytest.importorskip("kubernetes_validate").validate
    for name in ("namespace", "storage", "job"):
        for document in documents(DEPLOY / "kubernetes" / f"{name}.yaml"):
            validate(document, "1.31", strict=True)
    listed = documents(DEPLOY / "kubernetes" / "kustomization.yaml")[0]["resources"]
    there = {path.name for path in (DEPLOY / "kubernetes").glob("*.yaml")}
    assert {*listed, "kustomization.yaml"} == there


def test_the_cluster_is_valid_for_the_dask_operator() -> None:
    jsonschema = pytest.importorskip("jsonschema")
    spec = importlib.util.find_spec("dask_kubernetes")
    if spec is None or not spec.submodule_search_locations:
        pytest.skip("dask-kubernetes is not installed: pip install 'catalogproc[deploy]'")
    chart = "operator/deployment/helm/dask-kubernetes-operator/crds/daskcluster.yaml"
    [definition] = documents(Path(spec.submodule_search_locations[0]) / chart)
    schema = definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    [cluster] = documents(DEPLOY / "kubernetes" / "cluster.yaml")
    jsonschema.validate(cluster, schema)
    # The schema does check something: without its scheduler the cluster is invalid.
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(
            cluster | {"spec": {"worker": cluster["spec"]["worker"], "scheduler": {}}}, schema
        )
    worker = cluster["spec"]["worker"]["spec"]["containers"][0]
    assert worker["resources"]["limits"]["nvidia.com/gpu"] == "1"


def test_the_driver_uses_the_address_and_storage_of_the_cluster() -> None:
    [cluster] = documents(DEPLOY / "kubernetes" / "cluster.yaml")
    [job] = documents(DEPLOY / "kubernetes" / "job.yaml")
    pod = job["spec"]["template"]["spec"]
    words = pod["containers"][0]["args"]
    # The operator names a cluster's scheduler service NAME-scheduler.
    assert words[words.index("--scheduler") + 1] == (
        f"tcp://{cluster['metadata']['name']}-scheduler:8786"
    )
    claims = {
        volume["persistentVolumeClaim"]["claimName"]
        for spec in (pod, cluster["spec"]["worker"]["spec"])
        for volume in spec["volumes"]
    }
    [storage] = documents(DEPLOY / "kubernetes" / "storage.yaml")
    assert claims == {storage["metadata"]["name"]}
    assert_valid_command(words)


# ---- Compose and images


def assert_valid_command(words: list[str]) -> None:
    """Assert that the command line accepts these arguments, up to the missing input."""
    command = [sys.executable, "-m", "catalogproc", *words]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert "Usage" not in done.stderr, done.stderr
    assert done.returncode == 2
    assert "error:" in done.stderr


def test_services_use_the_images_of_the_dockerfile() -> None:
    [compose] = documents(DEPLOY / "compose" / "compose.yaml")
    text = (DEPLOY / "Dockerfile").read_text()
    targets = set(re.findall(r"^FROM \S+ AS (\S+)$", text, re.M))
    assert targets == {"base", "cpu", "cuda"}
    for name, service in compose["services"].items():
        build = service["build"]
        assert build["target"] in targets, name
        dockerfile = DEPLOY / "compose" / build["context"] / build["dockerfile"]
        assert dockerfile.resolve() == DEPLOY / "Dockerfile"
        for other in service.get("depends_on", {}):
            assert other in compose["services"]
    assert_valid_command(compose["services"]["run"]["command"])
    # The dashboard is reachable from this machine only.
    for service in compose["services"].values():
        for port in service.get("ports", []):
            assert port.startswith("127.0.0.1:")


def test_the_image_copies_all_that_the_wheel_needs() -> None:
    text = (DEPLOY / "Dockerfile").read_text()
    copied = " ".join(re.findall(r"^COPY (.+)$", text, re.M)).split()
    setuptools = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    mapped = setuptools["package-dir"]
    for package in setuptools["packages"]:
        for name, folder in mapped.items():
            if package == name or package.startswith(f"{name}."):
                path = f"{folder}{package.removeprefix(name).replace('.', '/')}"
                assert any(path == one or path.startswith(f"{one}/") for one in copied), path
                assert (ROOT / path).is_dir()
    for name in ("pyproject.toml", "README.md", "catalogproc"):
        assert name in copied


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_install_steps_of_the_image_run(tmp_path: Path) -> None:
    """RUN pip install … of the CPU image, with the files that it copies."""
    import shutil

    text = (DEPLOY / "Dockerfile").read_text()
    context = tmp_path / "context"
    context.mkdir()
    for line in re.findall(r"^COPY (.+)$", text, re.M):
        *sources, _ = shlex.split(line)
        for source in sources:
            copy = shutil.copytree if (ROOT / source).is_dir() else shutil.copy
            copy(ROOT / source, context / source)
    stage = text.split("AS cpu")[1].split("FROM")[0]
    [install] = re.findall(r"^RUN (pip install .+)$", stage, re.M)
    subprocess.run([sys.executable, "-m", "venv", str(tmp_path / "venv")], check=True)
    words = shlex.split(re.sub(r"--extra-index-url \S+ ", "", install))
    pip = [str(tmp_path / "venv" / "bin" / "pip"), *words[1:]]
    subprocess.run(pip, check=True, cwd=context, timeout=800)
    tool = tmp_path / "venv" / "bin" / "catalogproc"
    clean = {"PATH": os.environ["PATH"], "HOME": str(tmp_path)}
    done = subprocess.run([str(tool), "describe", "default"], capture_output=True, text=True,
                          env=clean, cwd=tmp_path, timeout=120)  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "hash" in done.stdout
