"""The benchmark on the sample scenes: a top-hat, and a small network with random weights."""

from __future__ import annotations

import csv
import dataclasses
import sys
from collections import Counter
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

import tiny
from ismallnet import checkpoint, data
from ismallnet.benchmark.curves import curves
from ismallnet.benchmark.entrants import Remembering, list_entrants
from ismallnet.benchmark.figure3 import choose, draw, find_marks, look
from ismallnet.benchmark.page import to_markdown
from ismallnet.benchmark.published import published
from ismallnet.benchmark.table1 import COLUMNS, PROTOCOLS, Table, table1
from ismallnet.cli import main
from ismallnet.data import Dataset
from ismallnet.detector import Detector
from ismallnet.evaluate import evaluate
from ismallnet.models import create_model, list_models
from ismallnet.rules import Fixed
from ismallnet.types import Sample

ROOT = Path(__file__).parents[1]
SCENES = ROOT / "examples" / "scenes"


@pytest.fixture(scope="module")
def scenes() -> Dataset:
    """Three of the sample scenes; a list without a name of its own, `all`, counts as a test list."""
    every = data.load("folder", SCENES, "all")
    return every.subset(("cloud_edge", "cloud_thin", "sea_glint"))


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> str:
    return save_network(tmp_path_factory.mktemp("weights") / "small", seed=0)


def save_network(folder: Path, *, seed: int) -> str:
    torch.manual_seed(seed)
    name, options = tiny.MODEL["name"], tiny.MODEL["options"]
    metadata = {
        "data": [{"name": "toy", "split": "train"}],
        "recipe": {"training": {"seed": 5}},
    }
    checkpoint.save_model(
        folder, create_model(name, **options), name=name, options=options, metadata=metadata
    )
    return str(folder)


def measure(scenes: Dataset, out: Path, network: str, **changed: object) -> Table:
    arguments = {"weights": {"small": network}, "bootstrap": 20, "log": out / "log", "device": "cpu"}
    return table1([scenes], ["top-hat", "mdvsfa"], out=out, **(arguments | changed))


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


# --- the table ---


def test_table_has_a_row_a_detector_and_protocol_with_the_rates_of_evaluate(
    scenes: Dataset, tmp_path: Path, network: str
) -> None:
    table = measure(scenes, tmp_path, network)
    found = {(row["detector"], row["protocol"]): row for row in table.rows}
    assert set(found) == {(name, protocol) for name in ("top-hat", "small") for protocol in PROTOCOLS}
    expected = evaluate(Detector.from_filter("top-hat"), scenes, bootstrap=20).rates.overall
    for name in ("iou", "niou", "pd", "fa", "ap50"):
        row = found["top-hat", "standard"]
        cells = (row[name], row[f"{name}_low"], row[f"{name}_high"])
        assert [float(cell) for cell in cells] == pytest.approx(list(expected[name]), rel=1e-5)
    assert tuple(rows(tmp_path / "table1.csv")[0]) == COLUMNS


def test_row_says_what_it_depends_on(scenes: Dataset, tmp_path: Path, network: str) -> None:
    table = measure(scenes, tmp_path, network)
    filtered, small = (
        next(row for row in table.rows if row["detector"] == name) for name in ("top-hat", "small")
    )
    assert filtered["calibrated"].startswith("k = 11.2, by iou on NUAA-SIRST train")
    assert (filtered["parameters"], filtered["weights_sha256"]) == ("", "")
    assert filtered["network"] == ""
    assert small["network"] == "ismallnet-s(widths=[4, 4, 4, 4, 4], fusion_width=4)"
    network_of = create_model(tiny.MODEL["name"], **tiny.MODEL["options"])
    assert int(small["parameters"]) == sum(p.numel() for p in network_of.parameters())
    assert (small["trained_on"], small["training_seed"], small["n"]) == ("toy train", "5", "3")
    assert int(small["macs"]) > 0
    assert float(small["ms_per_image"]) > 0
    assert len(small["weights_sha256"]) == 64
    assert all(small[name] for name in ("date", "hardware", "split_sha256"))


def test_strata_are_rows_of_a_table_of_their_own(scenes: Dataset, tmp_path: Path, network: str) -> None:
    measure(scenes, tmp_path, network)
    found = [row for row in rows(tmp_path / "strata.csv") if row["detector"] == "top-hat"]
    by_size = [row for row in found if (row["property"], row["protocol"]) == ("area", "standard")]
    assert [row["bin"] for row in by_size] == ["<=9", "10-25", "26-64", ">64"]
    truth = sum(count.targets for count in evaluate(Detector.from_filter("top-hat"), scenes).counts)
    assert sum(int(row["targets"]) for row in by_size) == truth


def test_finished_rows_are_not_computed_again_and_no_row_is_there_twice(
    scenes: Dataset, tmp_path: Path, network: str
) -> None:
    assert measure(scenes, tmp_path, network, protocols=["standard"]).computed == 2
    before = rows(tmp_path / "table1.csv")
    assert measure(scenes, tmp_path, network).computed == 2
    after = rows(tmp_path / "table1.csv")
    assert after[:2] == before
    assert measure(scenes, tmp_path, network).computed == 0
    assert rows(tmp_path / "table1.csv") == after
    keys = Counter((row["detector"], row["data"], row["protocol"]) for row in after)
    assert set(keys.values()) == {1}


def test_rows_of_other_weights_are_computed_again_in_place_of_the_old(
    scenes: Dataset, tmp_path: Path, network: str
) -> None:
    measure(scenes, tmp_path, network)
    other = save_network(tmp_path / "other", seed=1)
    table = measure(scenes, tmp_path, other)
    assert (table.computed, len(table.rows)) == (2, 4)


def test_interrupted_table_keeps_its_finished_rows(scenes: Dataset, tmp_path: Path, network: str) -> None:
    def stop(done: int, *_: object) -> None:
        if done == 2 * len(scenes) + 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        measure(scenes, tmp_path, network, advance=stop)
    assert [row["detector"] for row in rows(tmp_path / "table1.csv")] == ["top-hat", "top-hat"]
    assert measure(scenes, tmp_path, network).computed == 2


def test_every_row_on_a_test_list_is_logged(scenes: Dataset, tmp_path: Path, network: str) -> None:
    measure(scenes, tmp_path, network, purpose="rehearsal", limit=2)
    logged = rows(tmp_path / "log" / "test_evaluations.csv")
    assert [(row["purpose"], row["n"]) for row in logged] == [("rehearsal", "2")] * 4


def test_limited_table_is_marked_and_not_mixed_with_a_full_one(
    scenes: Dataset, tmp_path: Path, network: str
) -> None:
    table = measure(scenes, tmp_path, network, limit=2)
    assert {(row["n"], row["limit"], row["split"]) for row in table.rows} == {("2", "2", "first 2 of 3/all")}
    assert "**A rehearsal on the first 2 images of each list" in to_markdown(table)
    with pytest.raises(ValueError, match="first 2 images of each list, not of all images; choose another"):
        measure(scenes, tmp_path, network)


def test_detector_without_weights_is_listed_with_the_command_that_trains_it(
    scenes: Dataset, tmp_path: Path, network: str
) -> None:
    table = measure(scenes, tmp_path, network, limit=1)
    (absent,) = table.missing
    assert absent.name == "mdvsfa"
    assert absent.reason.startswith("no weights: train with ismallnet train recipes/mdvsfa-nuaa.yaml")
    assert f"- mdvsfa on folder: {absent.reason}" in to_markdown(table)


def test_page_has_the_numbers_of_the_paper_beside_ours(scenes: Dataset, tmp_path: Path, network: str) -> None:
    nuaa = dataclasses.replace(scenes, name="NUAA-SIRST")
    lines = to_markdown(measure(nuaa, tmp_path, network, limit=1)).splitlines()
    row = next(line for line in lines if line.startswith("| top-hat | Top-Hat (OE'96)"))
    cells = [cell.strip() for cell in row.strip("|").split("|")]
    assert cells[2:6] == ["23.52", "67.23", "44.47", "53.53"]
    assert any(line.startswith("| dnanet | DNANet (TIP'22) | 77.47 | 83.37") for line in lines)
    assert any(line.startswith("| alcnet | ALCNet (TGRS'21) | 72.80 † |") for line in lines)


def test_page_of_one_detector_says_of_every_network_that_it_has_no_weights(
    scenes: Dataset, tmp_path: Path
) -> None:
    nuaa = dataclasses.replace(scenes, name="NUAA-SIRST")
    table = table1([nuaa], ["top-hat"], out=tmp_path, limit=1, bootstrap=20, log=tmp_path)
    assert table.missing == ()
    page = to_markdown(table)
    assert "| mdvsfa | MDvsFA-cGAN (ICCV'19) | 64.56 † | 83.47 | 52.47 | 64.44 | no weights | – |" in page
    assert "| mdvsfa | no weights | – | – |" in page  # under `standard`
    assert "- mdvsfa on NUAA-SIRST: no weights: train with ismallnet train recipes/mdvsfa-nuaa.yaml" in page


def test_filters_have_scr_gain_and_suppression_and_networks_none(
    scenes: Dataset, tmp_path: Path, network: str
) -> None:
    table = measure(scenes, tmp_path, network)
    overall = evaluate(Detector.from_filter("top-hat"), scenes, bootstrap=20).rates.overall
    row, other = (
        next(row for row in table.rows if (row["detector"], row["protocol"]) == (name, "standard"))
        for name in ("top-hat", "small")
    )
    for name in ("scr_gain", "suppression"):
        assert float(row[name]) == pytest.approx(overall[name].value, rel=1e-5)
        assert other[name] == ""
    cells = " | ".join(f"{overall[name].value:.3g}" for name in ("scr_gain", "suppression"))
    assert f"| top-hat | {cells} |" in to_markdown(table)


def test_weights_for_one_data_set_stand_for_that_one_alone(
    scenes: Dataset, tmp_path: Path, network: str
) -> None:
    other = dataclasses.replace(scenes, name="other")
    table = table1(
        [scenes, other], [], out=tmp_path, weights={"mine:other": network}, limit=1, bootstrap=0,
        log=tmp_path, device="cpu",
    )  # fmt: skip
    assert {(row["detector"], row["data"]) for row in table.rows} == {("mine", "other")}
    assert [(each.name, each.data) for each in table.missing] == [("mine", "folder")]


def test_image_is_scored_once_a_geometry() -> None:
    calls: list[tuple[int, ...]] = []

    def function(image: np.ndarray) -> np.ndarray:
        calls.append(image.shape)
        return image

    memory = Remembering(Detector(function, name="counted", rule=Fixed()))
    image = np.random.default_rng(0).random((8, 8), np.float32)
    for size in (None, None, (16, 16), (16, 16)):
        memory.score(image, input_size=size)
    memory.score(1 - image)
    assert calls == [(8, 8), (16, 16), (8, 8)]


def test_entrants_are_those_of_the_paper_in_its_order_then_ours() -> None:
    names = list_entrants(None, {})
    assert names[:3] == ["top-hat", "max-median", "lcm"]
    assert "ismallnet-s" in names
    assert len(names) == len(set(names))
    with pytest.raises(ValueError, match="top-hat is given twice"):
        list_entrants(["top-hat", "lcm", "top-hat"], {})


def test_missing_data_is_an_error_that_says_where_it_was_looked_for(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["benchmark", "table1", "--root", str(tmp_path / "nowhere"), "--out", "out"]) == 2
    assert "NUAA-SIRST not found" in " ".join(capsys.readouterr().err.split())
    assert not (tmp_path / "out").exists()


def test_command_fills_the_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    words = ["--data", "folder", "--root", str(SCENES), "--split", "all", "--detectors", "top-hat"]
    words += ["--limit", "1", "--bootstrap", "0", "--out", "table"]
    assert main(["benchmark", "table1", *words]) == 0
    assert {path.name for path in Path("table").iterdir()} == {"table1.csv", "strata.csv", "table1.md"}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("table1", "--weights", "small"), "--weights takes NAME=FOLDER"),
        (("table1", "--weights", "small:nuba=runs"), "unknown data set 'nuba'"),
        (("table1", "--limit", "0"), "limit is a number of images, 1 or more; got 0"),
        (("figure3", "--images", "nuaa:Misc_1"), "--images takes DATA:ID with DATA one of folder"),
        (("curves", "--detectors", "top-hat", "no-such"), "no-such is neither a folder nor a model"),
    ],
)
def test_wrong_words_are_refused_with_what_is_accepted(
    words: tuple[str, ...],
    message: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    verb, *options = words
    assert (
        main(["benchmark", verb, "--data", "folder", "--root", str(SCENES), "--split", "all", *options]) == 2
    )
    assert message in " ".join(capsys.readouterr().err.split())
    assert not list(tmp_path.iterdir())


# --- the paper's numbers ---


def test_published_table_is_that_of_the_paper() -> None:
    """Table 1 of the paper: 16 methods on two data sets; F1 is that of the two means, to a rounding."""
    assert len(published()) == 32
    assert {row.detector for row in published()} <= {*list_models(), *list_entrants(None, {})}
    for row in published():
        p, r = float(row.precision), float(row.recall)
        assert 2 * p * r / (p + r) == pytest.approx(float(row.f1), abs=0.011)


def test_nine_cells_of_the_paper_contradict_themselves() -> None:
    """systems.md, section 0, by hand: all are of competitors."""
    wrong = [(row.detector, row.data[:4]) for row in published() if not row.feasible]
    assert wrong == [
        ("tllcm", "NUAA"), ("tllcm", "NUDT"), ("tbcnet", "NUAA"), ("tbcnet", "NUDT"), ("mdvsfa", "NUAA"),
        ("mdvsfa", "NUDT"), ("acm", "NUDT"), ("alcnet", "NUAA"), ("alcnet", "NUDT"),
    ]  # fmt: skip


# --- the figure ---


def square(mask: np.ndarray, y: int, x: int, side: int = 3) -> None:
    mask[y : y + side, x : x + side] = True


def test_circles_are_red_for_found_yellow_for_false_and_green_for_missed() -> None:
    truth, mask = np.zeros((2, 40, 60), bool)
    square(truth, 5, 5)
    square(mask, 5, 7)  # centroids 2 px apart: found
    square(truth, 20, 20)
    square(mask, 20, 23)  # 3 px apart, not closer: missed, and false
    found = [(mark.kind, mark.x, mark.y) for mark in find_marks(mask, truth)]
    assert found == [("detected", 8, 6), ("false", 24, 21), ("missed", 21, 21)]


def test_images_are_chosen_by_their_truth_alone() -> None:
    """Of five: the second has the dimmest target, the third the most, the fifth the largest."""
    samples = {}
    noise = np.random.default_rng(3).normal(0, 5, (64, 64))
    for id, (levels, sides) in {
        "plain": ((150,), (3,)),
        "dim": ((110,), (3,)),
        "many": ((150, 150, 150), (3, 3, 3)),
        "other": ((150,), (4,)),
        "large": ((150, 150), (3, 7)),
    }.items():
        mask, image = np.zeros((64, 64), bool), 100 + noise
        for number, (level, side) in enumerate(zip(levels, sides, strict=True)):
            square(mask, 5 + 20 * number, 5 + 20 * number, side)
            image[5 + 20 * number :, 5 + 20 * number :][:side, :side] = level
        samples[id] = Sample(id, image.clip(0, 255).astype(np.uint8), mask)
    dataset = Dataset("toy", Path(), "train", tuple(samples), samples.__getitem__)
    assert choose(dataset) == ("dim", "many", "large")
    assert choose(dataset.subset(["large"])) == ("large",)


def test_figure_has_its_rows_as_evaluate_counts_them_and_a_look_is_logged(
    scenes: Dataset, tmp_path: Path, network: str
) -> None:
    looks, missing = look(
        [scenes],
        ["top-hat", "mdvsfa"],
        weights={"small": network},
        log=tmp_path,
        device="cpu",
        purpose="figure",
    )
    assert [each.sample.id for each in looks] == list(scenes.ids)
    assert [each.name for each in missing] == ["mdvsfa"]
    counts = evaluate(Detector.from_filter("top-hat"), scenes).counts
    for each, count in zip(looks, counts, strict=True):
        kinds = Counter(mark.kind for mark in each.panels["top-hat"].marks)
        expected = count.matched, count.false_components, count.targets - count.matched
        assert (kinds["detected"], kinds["false"], kinds["missed"]) == expected
    assert [row["purpose"] for row in rows(tmp_path / "test_evaluations.csv")] == ["figure"] * 2


def test_figure_is_drawn_with_surfaces_and_coloured_circles(scenes: Dataset, tmp_path: Path) -> None:
    looks, _ = look([scenes.subset(["cloud_thin"])], ["top-hat"], log=tmp_path)
    written = {path.name for path in draw(looks, tmp_path / "figure", surface=True)}
    stems = ("figure3", "figure3-surface")
    assert written == {f"{stem}.{suffix}" for stem in stems for suffix in ("png", "pdf")} | {"figure3.json"}
    blue, green, red = cv2.split(cv2.imread(str(tmp_path / "figure" / "figure3.png")).astype(int))
    assert ((red - blue > 100) & (red - green > 100)).any()


def test_without_matplotlib_the_error_says_what_to_install(
    scenes: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    looks, _ = look([scenes.subset(["cloud_thin"])], ["top-hat"], log=tmp_path)
    with pytest.raises(ImportError, match=r"pip install 'ismallnet\[plot\]'"):
        draw(looks, tmp_path / "figure")
    with pytest.raises(ImportError, match=r"ismallnet\[plot\]"):
        curves([scenes], ["top-hat"], out=tmp_path / "curves", log=tmp_path)


# --- the curves ---


def test_curves_are_those_of_evaluate_and_not_swept_twice(scenes: Dataset, tmp_path: Path) -> None:
    small = scenes.subset(["cloud_thin"], split="train")
    arguments = {"out": tmp_path / "curves", "log": tmp_path}
    paths = curves([small], ["top-hat", "max-median"], **arguments)
    assert [path.name for path in paths] == ["roc.csv", "points.csv", "roc-folder.png", "roc-folder.pdf"]
    expected = evaluate(Detector.from_filter("top-hat"), small, curves=True, bootstrap=0).curves
    assert expected is not None
    areas = rows(tmp_path / "curves" / "roc.csv")
    assert float(areas[0]["roc_area"]) == pytest.approx(expected.roc.area, rel=1e-5)
    kept = [row for row in rows(tmp_path / "curves" / "points.csv") if row["detector"] == "top-hat"]
    exact = {(f"{x:.6g}", f"{y:.6g}") for x, y in zip(expected.roc.x, expected.roc.y, strict=True)}
    assert {(row["fpr"], row["tpr"]) for row in kept} <= exact
    assert (float(kept[-1]["fpr"]), float(kept[-1]["tpr"])) == (1, 1)
    swept: list[str] = []
    curves(
        [small], ["top-hat", "max-median", "lcm"], advance=lambda *step: swept.append(step[2]), **arguments
    )
    assert swept == ["lcm, folder: cloud_thin"]
    assert len(rows(tmp_path / "curves" / "roc.csv")) == 3
    assert not (tmp_path / "test_evaluations.csv").exists()


def test_table_keeps_the_curves_of_what_it_computes_in_one_look(
    scenes: Dataset, tmp_path: Path, network: str
) -> None:
    measure(scenes, tmp_path, network, curves=tmp_path / "curves")
    areas = rows(tmp_path / "curves" / "roc.csv")
    assert [row["detector"] for row in areas] == ["top-hat", "small"]
    looks = rows(tmp_path / "log" / "test_evaluations.csv")
    assert Counter(row["protocol"] for row in looks) == {"ismallnet": 2, "standard": 2}
    alone = tmp_path / "alone"
    curves([scenes], ["top-hat"], out=alone, log=tmp_path)
    columns = ("detector", "data", "decision", "split_sha256", "n", "roc_area", "pr_area", "froc_area")
    assert [areas[0][name] for name in columns] == [rows(alone / "roc.csv")[0][name] for name in columns]
    swept: list[str] = []
    curves(
        [scenes],
        ["top-hat", "mdvsfa"],
        out=tmp_path / "curves",
        weights={"small": network},
        log=tmp_path,
        device="cpu",
        advance=lambda *step: swept.append(step[2]),
    )
    assert not swept
    assert (tmp_path / "curves" / "roc-folder.png").exists()


def test_document_lists_the_cells_that_contradict_themselves() -> None:
    text = (ROOT / "docs" / "reproduction.md").read_text("utf-8")
    block = text.split("## Nine cells", 1)[1].split("\n## ", 1)[0]
    cells = [
        [cell.strip(" `") for cell in line.strip("|").split("|")]
        for line in block.splitlines()
        if line.startswith("| `")
    ]
    expected = [
        [row.detector, row.data, row.miou, row.precision, row.recall]
        for row in published()
        if not row.feasible
    ]
    assert cells == expected
