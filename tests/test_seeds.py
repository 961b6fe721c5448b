"""A detector over its seeds: made-up rows, with verdicts by hand; then three tiny networks."""

from __future__ import annotations

import math
import shutil
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch

import tiny
from ismallnet import checkpoint
from ismallnet.benchmark.entrants import by_seed
from ismallnet.benchmark.seeds import Spread, spreads, t_interval, to_cells
from ismallnet.cli import main
from ismallnet.models import create_model

SCENES = Path(__file__).parents[1] / "examples" / "scenes"
PAPER = 80.34
"""mIoU of iSmallNet on NUAA-SIRST in the paper."""


def row(seed: int, value: float, *, half: float = 0.5, **changed: str) -> dict[str, str]:
    """A row of table1.csv: rates in per cent, each with an interval of twice the half."""
    rates = {
        f"{rate}{end}": f"{(value + side * half) / 100:.6g}"
        for rate in ("mean_iou", "f1_of_means", "iou", "niou")
        for end, side in (("", 0), ("_low", -1), ("_high", 1))
    }
    named = {"detector": f"ismallnet, seed {seed}", "data": "NUAA-SIRST", "protocol": "ismallnet"}
    return {**named, "trained_on": "NUAA-SIRST train", "training_seed": str(seed), **rates, **changed}


def of(values: Sequence[float], *, half: float = 0.5, **changed: str) -> Spread:
    rows = [row(seed, value, half=half, **changed) for seed, value in enumerate(values)]
    return spreads(rows)[0]


def test_seeds_of_one_detector_are_one_row_with_mean_and_standard_deviation() -> None:
    """Of 81, 82 and 83: mean 82, standard deviation 1, t(0.975, 2) = 4.3027 (tables), so ± 2.484."""
    spread = of([81, 82, 83])
    assert (spread.detector, spread.rate, spread.published) == ("ismallnet", "mean_iou", PAPER)
    assert list(spread.values) == ["0", "1", "2"]
    assert (spread.mean, spread.deviation) == pytest.approx((82, 1))
    assert spread.seeds == pytest.approx((82 - 2.484, 82 + 2.484), abs=1e-3)
    assert spread.images == pytest.approx((81.5, 82.5))


def test_rows_of_other_lists_protocols_and_train_sets_are_apart_and_filters_are_left_out() -> None:
    rows = [
        row(0, 81), row(1, 82), row(0, 70, data="NUDT-SIRST"), row(1, 70, protocol="standard"),
        row(1, 60, trained_on="both"), row(0, 50, detector="top-hat", training_seed=""),
    ]  # fmt: skip
    found = {(s.data, s.protocol, s.trained_on): len(s.values) for s in spreads(rows)}
    assert found == {
        ("NUAA-SIRST", "ismallnet", "NUAA-SIRST train"): 2,
        ("NUDT-SIRST", "ismallnet", "NUAA-SIRST train"): 1,
        ("NUAA-SIRST", "standard", "NUAA-SIRST train"): 1,
        ("NUAA-SIRST", "ismallnet", "both"): 1,
    }


@pytest.mark.parametrize(
    ("values", "half", "verdict"),
    [
        ([95], 0.5, "n = 1, claims nothing"),
        ([95, 95.1], 0.5, "n = 2, claims nothing"),
        ([81, 81.1, 81.2], 0.5, "above"),
        ([81, 81.1, 81.2], 1.0, "not resolved"),  # the interval over images has 80.34 in it
        ([80.5, 82, 83], 0.5, "not resolved"),  # that over seeds has
        ([79, 79.1, 79.2], 0.5, "below"),
        ([79, 79.1, 79.2], 2.0, "not resolved"),
    ],
)
def test_claim_takes_three_seeds_and_both_intervals(values: list[float], half: float, verdict: str) -> None:
    assert of(values, half=half).verdict == verdict


def test_nothing_is_said_against_the_paper_where_it_has_no_number_or_there_is_no_interval() -> None:
    assert of([95, 95, 95], protocol="standard").verdict == "–"
    assert of([95, 95, 95], detector="ours").verdict == "–"
    ends = ("mean_iou_low", "mean_iou_high")
    assert of([95, 95.1, 95.2], **dict.fromkeys(ends, "")).verdict == "not resolved"


def test_cells_of_a_single_seed_have_no_spread() -> None:
    cells = to_cells(of([81]))
    assert cells[3:] == ["1", "0: 81.00", "81.00", "[80.50, 81.50]", "–", "80.34", "n = 1, claims nothing"]
    assert to_cells(of([81, 82, 83]))[5] == "82.00 ± 1.00"


def test_interval_of_one_value_is_not_defined() -> None:
    assert all(map(math.isnan, t_interval([1.0])))


# --- folders of weights -------------------------------------------------------------------------------


def save(folder: Path, seed: int | None) -> str:
    torch.manual_seed(seed or 0)
    recipe = {} if seed is None else {"recipe": {"training": {"seed": seed}}}
    metadata = {"data": [{"name": "toy", "split": "train"}], **recipe}
    checkpoint.save_model(
        folder, create_model(tiny.MODEL["name"], **tiny.MODEL["options"]), **tiny.MODEL, metadata=metadata
    )
    return str(folder)


def test_folders_are_named_by_the_seeds_in_them(tmp_path: Path) -> None:
    runs = [save(tmp_path / str(seed) / "last", seed) for seed in (0, 7)]
    folders = [str(Path(run).parent) for run in runs]
    assert by_seed("net:NUAA-SIRST", folders) == {
        "net, seed 0:NUAA-SIRST": folders[0], "net, seed 7:NUAA-SIRST": folders[1],
    }  # fmt: skip


def test_one_seed_twice_and_weights_without_a_seed_are_refused(tmp_path: Path) -> None:
    one = save(tmp_path / "one", 3)
    copy = str(shutil.copytree(one, tmp_path / "copy"))
    with pytest.raises(ValueError, match=r"copy and .*one are both of seed 3"):
        by_seed("net", [one, copy])
    with pytest.raises(ValueError, match="does not say by which seed it was trained"):
        by_seed("net", [one, save(tmp_path / "none", None)])


def test_page_has_a_row_over_the_seeds_of_the_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    folders = ",".join(save(tmp_path / f"run{seed}", seed) for seed in range(3))
    words = ["--data", "folder", "--root", str(SCENES), "--split", "all", "--limit", "1", "--bootstrap", "20"]
    words += ["--detectors", "acm", "--weights", f"acm={folders}", "--out", "table"]
    assert main(["benchmark", "table1", *words]) == 0
    page = Path("table/table1.md").read_text(encoding="utf-8")
    over = [line.split(" | ") for line in page.splitlines() if line.startswith("| acm | toy train |")]
    assert [cells[2:4] for cells in over] == [["mIoU", "3"], ["F1", "3"], ["IoU", "3"], ["nIoU", "3"]]
    assert "With fewer than 3 seeds a row claims nothing" in page
    assert "- acm on folder" not in page  # not among those without weights
