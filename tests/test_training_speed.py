"""The benchmark of training: both ways are there, parts add up, rates are of its own times."""

from __future__ import annotations

from pathlib import Path

import pytest

import tiny
from ismallnet import config
from ismallnet.benchmark import training
from ismallnet.benchmark.training import PARTS, Clock, Job, Ours, Plain, to_markdown, training_speed
from ismallnet.cli import main


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.write_images(tmp_path_factory.mktemp("data") / "mine")


def write_recipe(root: Path, path: Path) -> Path:
    config.dump(tiny.recipe(root), path)
    return path


def test_both_ways_have_a_row_a_size_with_rates_of_their_own_times(root: Path, tmp_path: Path) -> None:
    recipe = write_recipe(root, tmp_path / "r.yaml")
    arguments = [
        "--rounds",
        "2",
        "--steps",
        "1",
        "--validate",
        "1",
        "--batch",
        "2",
        "--out",
        str(tmp_path / "out"),
    ]
    assert main(["benchmark", "train", "--recipes", str(recipe), "--root", str(root), *arguments]) == 0
    rows = training.Store(tmp_path / "out" / "training.csv", training.COLUMNS).rows
    assert [row["way"] for row in rows[:2]] == ["plain", "ours"]
    assert rows[0]["times_as_fast"] == "1.00"
    sizes = {max(stage.sizes) for stage in tiny.recipe(root).training.stages}
    assert {int(row["size_px"]) for row in rows} == sizes
    for plain, ours in zip(rows[::2], rows[1::2], strict=True):
        rates = float(plain["images_s"]), float(ours["images_s"])
        assert float(ours["times_as_fast"]) == pytest.approx(rates[1] / rates[0], rel=0.02, abs=0.01)
        assert all(float(row[f"{part}_ms"]) > 0 for row in (plain, ours) for part in (*PARTS, "validation"))
    page = (tmp_path / "out" / "training.md").read_text(encoding="utf-8")
    assert page == to_markdown(rows)
    assert f"| r | {rows[0]['model']} | 2 of {rows[0]['size_px']}² | plain |" in page


@pytest.mark.parametrize("way", ["plain", "ours"])
def test_the_parts_are_all_of_a_step(way: str, root: Path, tmp_path: Path) -> None:
    (recipe,) = training._stages(write_recipe(root, tmp_path / "r.yaml"), root, 2)
    job = Job(recipe, steps=3, validate=1)
    worker = Plain(job) if way == "plain" else Ours(job, tmp_path / "run")
    worker.step(Clock(worker.synchronise))
    clock, whole = Clock(worker.synchronise), Clock(worker.synchronise)
    with whole("validation"):
        for _ in range(job.steps):
            worker.step(clock)
    assert sum(clock.spent[part] for part in PARTS) == pytest.approx(whole.spent["validation"], rel=0.25)


def test_both_ways_learn_the_same_thing(root: Path, tmp_path: Path) -> None:
    """The plain way is no straw man: it brings the loss down as well."""
    (recipe,) = training._stages(write_recipe(root, tmp_path / "r.yaml"), root, 4)
    plain = Plain(Job(recipe, steps=1, validate=1))
    losses = []
    inner = plain.criterion.forward

    def watched(*inputs: object) -> object:
        losses.append(inner(*inputs))  # type: ignore[arg-type]
        return losses[-1]

    plain.criterion.forward = watched  # type: ignore[method-assign, assignment]
    for _ in range(60):
        plain.step(Clock(plain.synchronise))
    values = [float(loss.detach()) for loss in losses]
    assert sum(values[-10:]) < 0.8 * sum(values[:10])


def test_bad_numbers_and_recipes_are_refused(root: Path, tmp_path: Path) -> None:
    recipe = write_recipe(root, tmp_path / "r.yaml")
    with pytest.raises(ValueError, match="rounds is 0; give at least 1"):
        training_speed([recipe], out=tmp_path, root=root, rounds=0)
    with pytest.raises(ValueError, match="batch is -1"):
        training_speed([recipe], out=tmp_path, root=root, batch=-1)
    adversarial = Path(__file__).parents[1] / "recipes" / "mdvsfa-nuaa.yaml"
    with pytest.raises(ValueError, match="objective adversarial; give a supervised recipe"):
        training_speed([adversarial], out=tmp_path, root=root)
    with pytest.raises(FileNotFoundError, match="no recipe at"):
        training_speed([tmp_path / "none.yaml"], out=tmp_path, root=root)


def test_an_error_of_a_way_is_told(root: Path, tmp_path: Path) -> None:
    recipe = write_recipe(root, tmp_path / "r.yaml")
    with pytest.raises(FileNotFoundError):
        training_speed([recipe], out=tmp_path, root=tmp_path / "nowhere", rounds=1, steps=1, validate=1)
