"""Sweeps whose jobs run in other processes, as Hydra's launchers for clusters have it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.tiny import WORDS, latest, only_record

ROOT = Path(__file__).parents[1]
PLUGIN = '''
import os
import pickle

from hydra._internal.core_plugins.basic_launcher import BasicLauncher
from hydra.core.config_store import ConfigStore


class Apart(BasicLauncher):
    """Each job in a process that ends with it, which leaves nothing but what the job returns or raises."""

    def launch(self, job_overrides, initial_job_idx):
        return [self._apart(overrides, initial_job_idx + index) for index, overrides in enumerate(job_overrides)]

    def _apart(self, overrides, index):
        ours, theirs = os.pipe()
        if os.fork() == 0:
            with open(theirs, "wb") as file:
                pickle.dump(super().launch([overrides], index)[0], file)
            os._exit(0)
        os.close(theirs)
        with open(ours, "rb") as file:
            return pickle.load(file)


ConfigStore.instance().store("apart", {"_target_": f"{__name__}.Apart"}, group="hydra/launcher")
'''


@pytest.mark.usefixtures("one_thread")
def test_a_job_that_fails_in_another_process_fails_the_sweep_and_holds_up_no_other(
    images: Path, results: Path, tmp_path: Path
) -> None:
    (tmp_path / "hydra_plugins").mkdir()
    (tmp_path / "hydra_plugins" / "apart.py").write_text(PLUGIN)
    words = latest(*WORDS, f"data.root=/nowhere,{images}", f"results_dir={results}", "train.epochs=1")
    done = subprocess.run(
        [sys.executable, "-m", "repro.run", "-m", "hydra/launcher=apart", *words],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": f"{ROOT}:{tmp_path}"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2, done.stderr
    assert done.stderr.splitlines()[-1].startswith("error: data.root=/nowhere: no such folder")
    assert "Traceback" not in done.stderr
    assert only_record(results).status == "complete"
