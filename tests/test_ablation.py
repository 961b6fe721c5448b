"""The ablation's queue on a tiny network and a folder of noise, and its verdicts on numbers made by hand."""

from __future__ import annotations

import csv
import dataclasses
import fcntl
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning_fabric import Fabric

import tiny
from ismallnet import config, data
from ismallnet.benchmark.ablation import Outcome, ablation, columns
from ismallnet.benchmark.entrants import multiply_adds
from ismallnet.benchmark.variants import QUESTIONS, VARIANTS, Run, choose, fingerprint, plan
from ismallnet.benchmark.verdicts import compare, conclude, to_markdown
from ismallnet.cli import main
from ismallnet.detector import load
from ismallnet.evaluate import evaluate
from ismallnet.models import create_model
from ismallnet.train import Trainer, train

RECIPE = Path(__file__).parents[1] / "recipes" / "ablation.yaml"
FEW: Mapping[str, Mapping[str, str]] = {name: VARIANTS[name] for name in ("base", "none", "ldf")}
WORKER = """
import sys, torch
torch.set_num_threads(1)
from ismallnet.benchmark.ablation import ablation
from ismallnet.benchmark.variants import VARIANTS, plan
recipe, root, out, runs, *names = sys.argv[1:]
told = lambda done, total, text: print("step", done, flush=True)
queue = plan(recipe, root=root, variants={name: VARIANTS[name] for name in names}, seeds=(0, 1))
print("added", ablation(queue, out=out, runs=runs, advance=told).added)
"""


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images and masks with a train list only: the four test images are gone."""
    folder = tiny.write_images(tmp_path_factory.mktemp("data") / "mine")
    for name in (folder / "test.txt").read_text().split():
        (folder / "images" / f"{name}.png").unlink()
        (folder / "masks" / f"{name}.png").unlink()
    (folder / "test.txt").unlink()
    return folder


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory, root: Path) -> Path:
    return write_recipe(tmp_path_factory.mktemp("recipe") / "tiny.yaml", root)


def write_recipe(path: Path, root: Path, **changed: Any) -> Path:
    """A recipe of two steps in the file `path`; keywords are those of `tiny.recipe`."""
    made = tiny.recipe(root, **({"fold": 0, "steps": 2, "validate_every": 99} | changed))
    options = {"widths": [4, 4, 4], "depths": [1, 1, 1], "decoder_depths": [1, 1], "fusion_width": 4}
    options |= {"share": "nothing", "wiring": "mnim", "detail": 0}
    config.dump(dataclasses.replace(made, model=config.Model(options=options)), path)
    return path


@pytest.fixture(scope="module")
def finished(
    tmp_path_factory: pytest.TempPathFactory, recipe: Path, root: Path
) -> tuple[tuple[Run, ...], Outcome, Path]:
    """A whole queue of six runs, what the call said, and its folder."""
    folder = tmp_path_factory.mktemp("finished")
    runs = plan(recipe, root=root, variants=FEW, seeds=(0, 1))
    return runs, ablation(runs, out=folder / "out", runs=folder / "runs"), folder


def rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "ablation.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


# --- the plan ---


def test_queue_goes_by_seed_and_has_the_base_first() -> None:
    runs = plan(RECIPE)
    assert len(runs) == 30
    assert [run.seed for run in runs] == [0] * 10 + [1] * 10 + [2] * 10
    assert [run.variant for run in runs[10:13]] == ["base", "none", "unsupervised"]
    assert [run.recipe.training.seed for run in runs] == [run.seed for run in runs]


def test_variants_are_those_of_the_issue_and_every_one_answers_a_question() -> None:
    """Streams both, interior, boundary, none, unsupervised; four wirings; three label recipes."""
    runs = plan(RECIPE, seeds=(0,))
    found = [
        (options.get("streams", "both"), options["wiring"], run.recipe.labels)
        for run, options in ((run, run.recipe.model.options) for run in runs)
    ]
    expected = [(streams, "mnim", "target") for streams in ("both", "interior", "boundary", "none")]
    expected += [("unsupervised", "mnim", "target")]
    expected += [("both", wiring, "target") for wiring in ("unet", "unet++", "dna")]
    expected += [("both", "mnim", recipe) for recipe in ("official", "ldf")]
    assert sorted(found) == sorted(expected)
    asked = {name for question in QUESTIONS for name in question.variants}
    assert asked | {"base"} == {run.variant for run in runs}


@pytest.mark.parametrize("name", VARIANTS)
def test_variants_build_and_cost_at_most_600_million_multiply_adds(name: str) -> None:
    (run,) = plan(RECIPE, variants={name: VARIANTS[name]}, seeds=(0,))
    model = create_model(run.recipe.model.name, **run.recipe.model.options).eval()
    assert multiply_adds(model) <= 600e6


def test_choosing_keeps_the_order_of_the_plan() -> None:
    runs = choose(plan(RECIPE), only=["none", "base"], seeds=[2, 0])
    assert [(run.variant, run.seed) for run in runs] == [("base", 0), ("none", 0), ("base", 2), ("none", 2)]


@pytest.mark.parametrize(
    ("chosen", "message"),
    [
        ({"only": ["unte"]}, r"unknown variant 'unte'; did you mean 'unet'\?; the plan has base, none, "),
        ({"seeds": [7]}, "unknown seed 7; the plan has 0, 1, 2"),
    ],
)
def test_unknown_names_are_refused_with_what_there_is(chosen: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        choose(plan(RECIPE), **chosen)


def test_recipes_that_make_no_ablation_are_refused(tmp_path: Path, root: Path) -> None:
    with pytest.raises(ValueError, match=r"has no data\.fold, and a fold judges the variants"):
        plan(write_recipe(tmp_path / "recipe.yaml", root, fold=None))
    with pytest.raises(ValueError, match="is for 2 devices; an ablation's run has one"):
        plan(write_recipe(tmp_path / "recipe.yaml", root, devices=2))


def test_fingerprint_is_of_what_decides_the_weights(root: Path) -> None:
    one = tiny.recipe(root)
    alike = {"save_every": 7, "accelerator": "auto", "max_minutes": 3.0, "validate_every": 2}
    assert fingerprint(one) == fingerprint(tiny.recipe(root / "elsewhere", **alike))
    others = [tiny.recipe(root, steps=7), tiny.recipe(root, fold=1), tiny.recipe(root, seed=1)]
    others += [dataclasses.replace(one, labels="ldf"), dataclasses.replace(one, model=config.Model())]
    assert len({fingerprint(each) for each in (one, *others)}) == 6


def test_fingerprint_of_an_unknown_network_is_refused_with_the_nearest(root: Path) -> None:
    misspelt = dataclasses.replace(tiny.recipe(root), model=config.Model(name="ismalnet-s"))
    with pytest.raises(ValueError, match=r"unknown model 'ismalnet-s'; did you mean 'ismallnet-s'\?"):
        fingerprint(misspelt)


def test_variants_see_the_same_images_at_one_seed(recipe: Path, root: Path, tmp_path: Path) -> None:
    """Crops, grey levels and masks are equal; only the label recipe changes the streams' maps."""
    fabric = Fabric(accelerator="cpu", devices=1)
    trainers = {
        run.variant: Trainer(run.recipe, fabric, tmp_path / run.name)
        for run in plan(recipe, root=root, seeds=(0,))
    }
    base = trainers.pop("base")
    for step in range(4):
        base.step = step
        expected = base._batch()
        for name, trainer in trainers.items():
            trainer.step = step
            batch = trainer._batch()
            assert torch.equal(batch.image, expected.image)
            assert torch.equal(batch.target, expected.target)
            same = [torch.equal(getattr(batch, m), getattr(expected, m)) for m in ("interior", "boundary")]
            assert all(same) is (name not in ("official", "ldf"))


# --- the queue ---


def test_a_finished_run_is_a_row_with_the_rates_of_evaluate(
    finished: tuple[tuple[Run, ...], Outcome, Path], root: Path
) -> None:
    runs, outcome, folder = finished
    table = rows(folder / "out")
    assert (outcome.added, outcome.left, outcome.failed) == (6, (), ())
    assert [(row["variant"], row["seed"]) for row in table] == [(run.variant, str(run.seed)) for run in runs]
    assert tuple(table[0]) == columns(runs[0].recipe)
    _, fold = data.validation_split(data.load("folder", root, "train"), 0)
    for run, row in zip(runs, table, strict=True):
        network = load(folder / "runs" / run.name / "last", device="cpu")
        expected = evaluate(network, fold, bootstrap=0).rates.overall
        for rate in ("iou", "niou", "pd", "fa"):
            assert float(row[f"folder_{rate}"]) == pytest.approx(expected[rate].value, rel=1e-5)
        assert (row["weights_sha256"], row["recipe_sha256"]) == (network.weights_sha256, run.sha256)
        assert (row["folder_n"], row["folder_split_sha256"]) == (str(len(fold)), fold.split_sha256)
        assert (row["fold"], row["protocol"], row["steps"], row["images"]) == ("0", "standard", "2", "8")
        assert all(row[name] for name in ("parameters", "macs", "minutes", "date", "hardware"))
    assert [row["overrides"] for row in table[:3]] == ["", "model.options.streams=none", "labels=ldf"]


def test_what_is_finished_is_not_trained_again(
    finished: tuple[tuple[Run, ...], Outcome, Path], tmp_path: Path
) -> None:
    runs, _, folder = finished
    before = (folder / "out" / "ablation.csv").read_bytes()
    again = ablation(runs, out=folder / "out", runs=tmp_path / "none")
    assert (again.added, again.left) == (0, ())
    assert (folder / "out" / "ablation.csv").read_bytes() == before
    assert not (tmp_path / "none").exists()


def test_progress_counts_the_steps_of_all_runs(recipe: Path, root: Path, tmp_path: Path) -> None:
    told: list[tuple[int, int, str]] = []
    runs = plan(recipe, root=root, variants=FEW, seeds=(0,))
    ablation(runs, out=tmp_path, runs=tmp_path / "runs", advance=lambda *step: told.append(step))
    assert [(done, total) for done, total, _ in told] == [(done, 6) for done in range(1, 7)]
    assert told[3][2].startswith("none, seed 0: loss ")


def test_a_stopped_queue_goes_on_to_the_same_weights(
    finished: tuple[tuple[Run, ...], Outcome, Path], tmp_path: Path
) -> None:
    runs, _, folder = finished
    first = ablation(runs[:1], out=tmp_path / "out", runs=tmp_path / "runs", max_minutes=1e-5)
    assert (first.added, first.left) == (0, runs[:1])
    assert "## Not run: 1 of 1" in first.page.read_text("utf-8")
    assert (tmp_path / "runs" / runs[0].name / "state-00000001").is_dir()
    assert ablation(runs[:1], out=tmp_path / "out", runs=tmp_path / "runs").added == 1
    assert rows(tmp_path / "out")[0]["weights_sha256"] == rows(folder / "out")[0]["weights_sha256"]


def test_another_recipe_is_computed_anew_in_the_place_of_the_old_row(root: Path, tmp_path: Path) -> None:
    for steps in (2, 3):
        file = write_recipe(tmp_path / "recipe.yaml", root, steps=steps)
        runs = plan(file, root=root, variants={"base": {}, "ldf": {"labels": "ldf"}}, seeds=(0,))
        page = to_markdown(runs, rows(tmp_path) if (tmp_path / "ablation.csv").exists() else [])
        assert "## Not run: 2 of 2" in page  # rows of another recipe are no rows of this one
        assert ablation(runs, out=tmp_path, runs=tmp_path / "runs").added == 2
        assert [row["steps"] for row in rows(tmp_path)] == [str(steps)] * 2


def test_a_run_that_another_process_has_is_left_to_it(recipe: Path, root: Path, tmp_path: Path) -> None:
    runs = plan(recipe, root=root, variants=FEW, seeds=(0,))
    folder = tmp_path / "runs" / runs[0].name
    folder.mkdir(parents=True)
    handle = os.open(folder / ".lock", os.O_RDWR | os.O_CREAT)
    fcntl.flock(handle, fcntl.LOCK_EX)
    outcome = ablation(runs, out=tmp_path, runs=tmp_path / "runs")
    assert (outcome.added, outcome.left) == (2, runs[:1])
    os.close(handle)
    assert ablation(runs, out=tmp_path, runs=tmp_path / "runs").added == 1


def start_worker(recipe: Path, root: Path, folder: Path) -> subprocess.Popen[str]:
    words = map(str, (recipe, root, folder / "out", folder / "runs", *FEW))
    return subprocess.Popen([sys.executable, "-c", WORKER, *words], stdout=subprocess.PIPE, text=True)


def test_two_processes_do_every_run_once(recipe: Path, root: Path, tmp_path: Path) -> None:
    workers = [start_worker(recipe, root, tmp_path) for _ in range(2)]
    said = [worker.communicate()[0].split() for worker in workers]
    assert [worker.returncode for worker in workers] == [0, 0]
    assert sum(int(words[words.index("added") + 1]) for words in said) == 6
    assert sum(words.count("step") for words in said) == 12  # two steps a run, none twice
    found = sorted((row["variant"], row["seed"]) for row in rows(tmp_path / "out"))
    assert found == sorted((name, seed) for name in FEW for seed in "01")


def test_the_run_of_a_killed_process_is_taken_up(root: Path, tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path / "recipe.yaml", root, steps=16, save_every=1)
    with start_worker(recipe, root, tmp_path) as worker:
        assert worker.stdout is not None
        next(line for line in worker.stdout if line == "step 3\n")
        os.kill(worker.pid, signal.SIGKILL)
    seen: list[int] = []
    run = plan(recipe, root=root, seeds=(0,))[:1]
    told = ablation(
        run, out=tmp_path / "out", runs=tmp_path / "runs", advance=lambda done, *_: seen.append(done)
    )
    assert told.added == 1
    assert seen[0] >= 4
    train(run[0].recipe, out=tmp_path / "whole")
    whole = load(tmp_path / "whole" / "last", device="cpu").weights_sha256
    assert rows(tmp_path / "out")[0]["weights_sha256"] == whole


def test_a_run_that_fails_is_named_and_the_others_are_done(recipe: Path, root: Path, tmp_path: Path) -> None:
    variants = {"base": {}, "wild": {"optimizer.lr": "1e30", "optimizer.clip": "0"}, "ldf": {"labels": "ldf"}}
    outcome = ablation(
        plan(recipe, root=root, variants=variants, seeds=(0,)), out=tmp_path, runs=tmp_path / "runs"
    )
    assert [row["variant"] for row in rows(tmp_path)] == ["base", "ldf"]
    assert len(outcome.failed) == 1
    assert outcome.failed[0].startswith("wild, seed 0: the loss became ")
    runs = plan(recipe, root=root, variants=variants, seeds=(0,))
    assert [run.name for run in outcome.left] == [runs[1].name]
    assert "## Failed: 1" in outcome.page.read_text("utf-8")
    told: list[int] = []
    again = ablation(runs, out=tmp_path, runs=tmp_path / "runs", advance=lambda done, *_: told.append(done))
    assert (again.failed, told) == (outcome.failed, [])
    (tmp_path / "runs" / runs[1].name / "failed.txt").unlink()
    assert ablation(runs[1:2], out=tmp_path, runs=tmp_path / "runs").failed


def test_rows_of_another_kind_of_device_are_refused(recipe: Path, root: Path, tmp_path: Path) -> None:
    runs = plan(recipe, root=root, variants=FEW, seeds=(0,))
    ablation(runs[:1], out=tmp_path, runs=tmp_path / "runs")
    table = tmp_path / "ablation.csv"
    hardware = rows(tmp_path)[0]["hardware"]
    table.write_text(table.read_text("utf-8").replace(hardware, f"{hardware}; NVIDIA H100"), "utf-8")
    with pytest.raises(ValueError, match="of runs on a GPU, and this one would be on the CPU"):
        ablation(runs, out=tmp_path, runs=tmp_path / "runs")


def test_a_table_of_other_data_and_no_time_are_refused(recipe: Path, root: Path, tmp_path: Path) -> None:
    runs = plan(recipe, root=root, variants=FEW)
    (tmp_path / "ablation.csv").write_text("variant,seed\n")
    with pytest.raises(ValueError, match="has other columns than this version writes; move it away"):
        ablation(runs, out=tmp_path, runs=tmp_path / "runs")
    with pytest.raises(ValueError, match="max_minutes is 0; give a positive number"):
        ablation(runs, out=tmp_path / "other", runs=tmp_path / "runs", max_minutes=0)
    assert not (tmp_path / "runs").exists()


def test_command_does_what_it_is_asked_for(
    recipe: Path,
    root: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    words = ["benchmark", "ablation", "--recipe", str(recipe), "--root", str(root)]
    assert main([*words, "--only", "none", "--seeds", "1"]) == 0
    said = capsys.readouterr().out
    assert "1 runs added, 0 of 1 left; the page is results/ablation/ablation.md" in said
    page = Path("results/ablation/ablation.md").read_text("utf-8")
    assert "## Not run: 29 of 30" in page
    assert "- none: seeds 0, 2" in page
    assert main([*words, "--only", "base", "--seeds", "3"]) == 0
    assert "## Not run: 38 of 40" in Path("results/ablation/ablation.md").read_text("utf-8")
    capsys.readouterr()
    assert main([*words, "--only", "unte"]) == 2
    assert "unknown variant 'unte'" in capsys.readouterr().err


# --- the verdicts ---


def test_interval_is_that_of_students_t() -> None:
    """Gains 1, 2, 3: mean 2, deviation 1; t of the tables for two degrees of freedom is 4.303."""
    paired = compare({0: 70, 1: 72, 2: 74, 5: 1}, {0: 69, 1: 70, 2: 71, 4: 1})
    assert paired.gains == {0: 1, 1: 2, 2: 3}
    assert paired.mean == 2
    assert paired.high - 2 == pytest.approx(4.303 / 3**0.5, abs=1e-3)
    assert 2 - paired.low == pytest.approx(4.303 / 3**0.5, abs=1e-3)


@pytest.mark.parametrize(
    ("gains", "verdict"),
    [
        ((2.0, 2.1, 1.9), "yes"),  # 2 ± 0.25
        ((0.5, 0.51, 0.49), "yes"),  # a small gain, but one
        ((1.0, 2.0, 3.0), "not resolved"),  # 2 ± 2.48
        ((-1.0, -1.1, -0.9), "no"),  # a loss
        ((0.1, -0.1, 0.0), "no"),  # 0 ± 0.25: a gain of a point is ruled out
        ((0.3, -0.3, 0.9), "not resolved"),  # 0.3 ± 1.49
        ((3.0,), "not resolved"),
        ((), "not resolved"),
    ],
)
def test_verdict_is_by_the_interval(gains: tuple[float, ...], verdict: str) -> None:
    paired = compare({seed: 50 + gain for seed, gain in enumerate(gains)}, dict.fromkeys(range(9), 50.0))
    assert paired.verdict == verdict


def test_a_question_is_answered_by_all_its_comparisons() -> None:
    assert conclude(["yes", "yes"]) == "yes"
    assert conclude(["yes", "no", "not resolved"]) == "no"
    assert conclude(["yes", "not resolved"]) == "not resolved"


def made_row(run: Run, iou: float) -> dict[str, str]:
    """A row as the queue writes it, with IoU of NUDT-SIRST as given and all else alike."""
    row = dict.fromkeys(columns(run.recipe), "1")
    row |= {f"NUAA-SIRST_{rate}": "nan" for rate in ("iou", "niou", "pd", "fa")}
    return row | {
        "variant": run.variant,
        "seed": str(run.seed),
        "overrides": " ".join(f"{key}={value}" for key, value in run.overrides.items()),
        "recipe_sha256": run.sha256,
        "NUDT-SIRST_iou": f"{iou:.6g}",
        "NUDT-SIRST_fa": "2e-05",
        "macs": "506265600",
        "commit": f"{'ab' * 20}",
        "date": f"2026-11-2{run.seed}T00:00:00+00:00",
    }


def test_page_says_what_the_rows_say() -> None:
    """Points of IoU by seed, base: 60, 61, 62; unsupervised: two less, give or take; U-Nets: the same."""
    runs = plan(RECIPE)
    base = {0: 0.60, 1: 0.61, 2: 0.62}
    less = {"base": (0, 0, 0), "unsupervised": (0.02, 0.021, 0.019), "none": (0.01, 0.03, 0.05)}
    less |= dict.fromkeys(("dna", "unet++", "unet"), (0, 0.001, -0.001))
    done = [run for run in runs if run.variant in less]
    page = to_markdown(runs, [made_row(run, base[run.seed] - less[run.variant][run.seed]) for run in done])
    lines = page.splitlines()
    none = "(0 of 3 seeds)"
    answers = [line.split(" | ")[1:] for line in lines if line.startswith("| **")]
    assert answers == [
        [f"not resolved {none}", "no |"],  # MNIM; nothing is known of NUAA-SIRST
        [f"not resolved {none}", f"not resolved {none} |"],  # two streams
        [f"not resolved {none}", "yes |"],  # label decoupling
        [f"not resolved {none}", f"not resolved {none} |"],  # label recipe: not run
    ]
    gains = "+2.00, +2.10, +1.90 | +2.00 | [+1.75, +2.25] | yes"
    assert f"| label decoupling | base − unsupervised | NUDT-SIRST | 3 | {gains} |" in lines
    assert f"| two streams | base − interior | NUDT-SIRST | 0 | – | – | – | not resolved {none} |" in lines
    assert "| base | 3 | 61.00 ± 1.00 | 100.00 ± 0.00 | 100.00 ± 0.00 | 20.0 ± 0.0 |" in lines
    assert "| unet | `model.options.wiring=unet` | 1 | 0.51 | 1.0 |" in lines
    assert "Seeds 0, 1, 2; 2026-11-20 to 2026-11-22; commits ababababab; 1." in lines
    assert lines[lines.index("## Not run: 12 of 30") + 2] == "- interior: seeds 0, 1, 2"


def test_page_marks_answers_of_fewer_seeds_and_those_with_a_failed_run() -> None:
    runs = plan(RECIPE, seeds=(2, 0, 10))
    wanted = [run for run in runs if run.variant in ("base", "unsupervised")]
    gains = {("base", seed): 0.03 + seed / 1e5 for seed in (0, 2, 10)}
    table = [made_row(run, 0.6 + gains.get((run.variant, run.seed), 0)) for run in wanted]
    page = to_markdown(runs, table[:-1])
    assert "Seeds 0, 2, 10; " in page
    assert "| not resolved (0 of 3 seeds) | yes (2 of 3 seeds) |" in page
    page = to_markdown(runs, table[:-1], {wanted[-1]: "the loss became nan"})
    assert "| not resolved (0 of 3 seeds) | not resolved (2 of 3 seeds) |" in page
    assert f"- unsupervised, seed 10 (`{wanted[-1].name}`): the loss became nan" in page
    assert "## Not run: 24 of 30" in page


def test_page_of_nothing_lists_everything_as_not_run() -> None:
    page = to_markdown(plan(RECIPE), [])
    assert "Nothing was run yet." in page
    assert "## Not run: 30 of 30" in page
