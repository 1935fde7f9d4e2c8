import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import repro

ROOT = Path(__file__).parents[1]

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel made from the source distribution; nothing is fetched."""
    folder = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(folder), str(ROOT)]
    ended = subprocess.run(command, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    (path,) = folder.glob("*.whl")
    return path


@pytest.fixture(scope="module")
def unpacked(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("installed")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder)
    return folder


def run_python(unpacked: Path, cwd: Path, *arguments: str) -> str:
    """Runs Python in an empty folder with the wheel's content ahead of the source tree; returns what it prints."""
    environment = {**os.environ, "PYTHONPATH": str(unpacked)}
    ended = subprocess.run([sys.executable, *arguments], cwd=cwd, env=environment, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


def test_the_wheel_holds_the_package_and_every_experiment(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    modules = {str(path.relative_to(ROOT)) for path in (ROOT / "repro").rglob("*.py")}
    experiments = ROOT / "experiments"
    files = {f"repro/_experiments/{path.relative_to(experiments)}" for path in experiments.rglob("*.yaml")}
    assert "repro/_experiments/config.yaml" in files
    info = f"alexnet_repro-{repro.__version__}.dist-info"
    assert modules | files | {"repro/_results/paper.csv"} <= names
    assert {name.split("/")[0] for name in names} == {"repro", info}
    assert f"{info}/licenses/LICENSE" in names


def test_an_installed_wheel_finds_its_own_experiments(unpacked: Path, tmp_path: Path) -> None:
    code = (
        "from repro.experiments.compose import compose; from repro.experiments.folder import EXPERIMENTS;"
        "print(EXPERIMENTS, compose(['ablation=no_lrn']).recipe)"
    )
    assert run_python(unpacked, tmp_path, "-c", code) == f"{unpacked / 'repro' / '_experiments'} paper\n"


def test_an_installed_wheel_runs_from_an_empty_folder(unpacked: Path, tmp_path: Path) -> None:
    assert "ablation" in run_python(unpacked, tmp_path, "-m", "repro.run", "--help")
    assert "fc8" in run_python(unpacked, tmp_path, "-m", "repro.describe")
    assert not any(tmp_path.iterdir())
