from repro.experiments import sweep
from repro.experiments.suites import runs


def test_the_plan_counts_the_runs_and_names_what_differs() -> None:
    asked = runs(["ablation=baseline,no_lrn", "seed=0,1,2", "train.epochs=1"])
    assert sweep.told("sweep", asked) == ["sweep: 6 runs", "  ablation baseline, no_lrn", "  seed     0, 1, 2"]
    assert sweep.told("suite=x", [("seed=1",)]) == ["suite=x: 1 run"]
    many = sweep.told("sweep", [(f"seed={number}",) for number in range(2000)])
    assert many[0] == "sweep: 2,000 runs"
    assert many[1].endswith(", 23, and 1,976 more")
