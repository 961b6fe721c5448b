from __future__ import annotations

import dataclasses
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from ismallnet import config
from ismallnet.config import Augment, MaskOffset, Optimizer, Recipe, Stage, Training

RECIPES = sorted((Path(__file__).parents[1] / "recipes").glob("*.yaml"))
EXAMPLE = Recipe(
    model=config.Model(name="ismallnet", options={"streams": "none", "widths": [8, 16]}),
    augment=Augment(scale=1.1, targets=1 / 3),
    optimizer=Optimizer(name="sgd", lr=0.1),
    training=Training(steps=7, stages=(Stage(sizes=(32, 48), batch=3), Stage(sizes=(64,)))),
)


@pytest.mark.parametrize("recipe", [Recipe(), EXAMPLE])
def test_a_recipe_comes_back_from_json_exactly(recipe: Recipe) -> None:
    assert config.from_dict(json.loads(json.dumps(config.to_dict(recipe)))) == recipe


def test_a_recipe_comes_back_from_yaml_exactly(tmp_path: Path) -> None:
    config.dump(EXAMPLE, tmp_path / "recipe.yaml")
    assert config.load(tmp_path / "recipe.yaml") == EXAMPLE


def test_a_recipe_is_frozen() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        Recipe().labels = "ldf"  # type: ignore[misc]


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_every_recipe_of_the_project_loads_and_has_a_length(path: Path) -> None:
    training = config.load(path).training
    assert training.steps is not None or training.epochs is not None


@pytest.mark.parametrize(("name", "data"), [("paper-nuaa", "NUAA-SIRST"), ("paper-nudt", "NUDT-SIRST")])
def test_the_paper_recipes_have_the_official_settings(name: str, data: str) -> None:
    # systems.md, section 12: the settings read in the official code
    recipe = config.load(next(path for path in RECIPES if path.stem == name))
    assert recipe.model == config.Model(name="ismallnet", options={"in_channels": 3})
    assert recipe.data.sets == (config.TrainSet(name=data),)
    assert recipe.data.fold is None
    # BCE + soft IoU on all three heads, a plain sum, per sample, smooth 1
    assert recipe.loss == config.Loss(target="bce+iou", streams="bce+iou", per_sample=True, smooth=1.0)
    assert recipe.loss.interior_weight == recipe.loss.boundary_weight == 1
    assert recipe.training.ema == 0
    assert (recipe.optimizer.name, recipe.optimizer.momentum, recipe.optimizer.weight_decay) == (
        "sgd", 0.9, 5e-4,
    )  # fmt: skip
    assert (recipe.optimizer.lr, recipe.schedule.name, recipe.training.epochs) == (0.05, "triangle", 1500)
    assert recipe.training.stages == (Stage(sizes=(224, 256, 288, 320, 352), batch=16),)
    assert (recipe.labels, recipe.augment.mode, recipe.optimizer.clip) == ("official", "paper", 0)


@pytest.mark.parametrize(
    ("name", "lr", "decay", "batch", "epochs"),
    # systems.md, sections 9 to 11: the settings read in the official codes
    [
        ("acm", 0.05, 1e-4, 8, 300),
        ("alcnet", 0.1, 1e-4, 2, 300),
        ("dnanet", 0.05, 0, 16, 1500),
    ],
)
def test_the_competitors_recipes_have_their_official_settings(
    name: str, lr: float, decay: float, batch: int, epochs: int
) -> None:
    recipe = config.load(next(path for path in RECIPES if path.stem == f"{name}-nuaa"))
    assert recipe.model == config.Model(name=name, options={"in_channels": 3})
    assert recipe.data == config.Data(sets=(config.TrainSet(name="NUAA-SIRST"),))
    assert (recipe.loss.target, recipe.loss.per_sample, recipe.loss.smooth) == ("iou", False, 1)
    optimizer = recipe.optimizer
    assert (optimizer.name, optimizer.lr, optimizer.weight_decay, optimizer.clip) == ("adagrad", lr, decay, 0)
    assert recipe.schedule == config.Schedule(name="constant", warmup=0)
    assert [stage.batch for stage in recipe.training.stages] == [batch]
    assert (recipe.training.epochs, recipe.training.precision, recipe.training.ema) == (epochs, "float32", 0)
    augment = recipe.augment
    assert (augment.scale, augment.aspect, augment.rotation, augment.blur) == (2, 1, 0, 0.5)


def test_dnanets_four_heads_count_alike() -> None:
    loss = config.load(next(path for path in RECIPES if path.stem == "dnanet-nuaa")).loss
    assert loss.auxiliary_weight == 3  # of the mean over three heads, beside the target's own


def test_mdvsfas_recipe_has_the_settings_of_the_pytorch_release() -> None:
    # systems.md, section 8
    recipe = config.load(next(path for path in RECIPES if path.stem == "mdvsfa-nuaa"))
    objective, optimizer = recipe.objective, recipe.optimizer
    assert (objective.name, objective.lambda1, objective.lambda2) == ("adversarial", 100, 10)
    assert (objective.fit, objective.adversarial, objective.consistency) == (100, 10, 1)
    assert (optimizer.name, optimizer.lr, optimizer.momentum, optimizer.weight_decay) == (
        "adamw",
        1e-4,
        0.5,
        0,
    )
    assert optimizer.lr * objective.discriminator_lr == pytest.approx(1e-5)
    assert recipe.training.stages == (Stage(sizes=(128,), batch=20),)
    assert recipe.training.steps == 30 * 10_000 // 20


def test_the_objective_is_supervised_unless_said() -> None:
    named = {path.stem: config.load(path).objective.name for path in RECIPES}
    others = {"mdvsfa-nuaa": "adversarial", "tbcnet-nuaa": "two-stage", "tbcnet-joint": "two-stage"}
    assert named == dict.fromkeys(named, "supervised") | others


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"optimiser": {}}, "unknown key 'optimiser'; .*did you mean 'optimizer'"),
        ({"optimizer": {"wieght_decay": 1}}, "unknown key 'optimizer.wieght_decay'; .*'weight_decay'"),
        ({"training": {"stages": [{"size": [8]}]}}, r"training.stages\[0\].size'; .*'sizes'"),
        ({"labels": "oficial"}, "labels.*official.*oficial"),
        ({"training": {"seed": 1.5}}, "training.seed.*int.*1.5"),
        ({"training": {"seed": True}}, "training.seed.*int.*True"),
        ({"optimizer": {"lr": "fast"}}, "optimizer.lr.*float.*fast"),
        ({"optimizer": {"lr": -1}}, "optimizer.lr: got -1.0, accepted is a positive number"),
        ({"augment": {"warp": 2}}, "augment.warp: got 2.0, accepted is a probability"),
        ({"augment": {"scale": 0.5}}, "augment.scale: got 0.5, accepted is a number of at least 1"),
        ({"data": {"sets": [{}]}}, r"data.sets.*{}"),
        ({"data": {"fold": 5}}, "data.fold: got 5, accepted is null or 0 to 4"),
        ({"objective": {"name": "adversary"}}, "objective.*adversarial.*adversary"),
        ({"objective": {"lambda1": -1}}, "objective.lambda1: got -1.0, accepted is a number of at least 0"),
        ({"objective": {"first_stage": 1}}, "objective.first_stage: got 1.0, accepted is a fraction"),
        ({"objective": {"classifier_lr": 0}}, "objective.classifier_lr: got 0.0, accepted is a positive"),
        ({"training": {"stages": []}}, "training.stages"),
        ({"training": {"stages": [{"sizes": [8]}]}}, "sides of at least 16"),
        ({"training": {"steps": 5, "epochs": 5}}, "both steps and epochs"),
        ({"training": {"max_minutes": 0}}, "training.max_minutes: got 0.0"),
        ({"training": 5}, "training: got 5, accepted is a mapping"),
        ({"training": None}, "training: got None, accepted is a mapping"),
        ({"model": {"name": None}}, "model.name: got None"),
        ({"training": {"stages": [{"batch": None}]}}, r"training.stages\[0\].batch: got None"),
        ({"labels": "ldf", "augment": {"paste": 0.5}}, "0 with labels ldf"),
    ],
)
def test_what_is_wrong_in_a_recipe_is_named(values: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        config.from_dict(values)
    assert "\n" not in str(caught.value)


def test_numbers_that_yaml_reads_as_text_are_numbers() -> None:
    assert config.from_dict({"optimizer": {"lr": "1e-3"}}).optimizer.lr == 0.001


def test_a_recipe_makes_no_object_of_a_class_that_it_names() -> None:
    planted = {"class_path": "fractions.Fraction", "init_args": {"numerator": 3}}
    with pytest.raises(ValueError, match=r'"model\.options"'):
        config.from_dict({"model": {"options": {"widths": planted}}})


def test_overrides_go_before_the_file(tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_text("optimizer: {lr: 0.1, clip: 2}\n")
    recipe = config.load(
        tmp_path / "recipe.yaml", overrides={"optimizer.lr": "1e-2", "data.fold": 3, "training.steps": "9"}
    )
    assert (recipe.optimizer.lr, recipe.optimizer.clip, recipe.data.fold) == (0.01, 2, 3)
    assert recipe.training.steps == 9


def test_overrides_add_to_the_options_of_the_file(tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_text("model: {options: {patch: 1, widths: [8, 8]}}\n")
    recipe = config.load(tmp_path / "recipe.yaml", overrides={"model.options.patch": 2})
    assert recipe.model.options == {"patch": 2, "widths": [8, 8]}


def test_an_error_in_a_file_names_the_file(tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text("labls: ldf\n")
    with pytest.raises(ValueError, match=re.escape(str(path)) + ".*labls"):
        config.load(path)


@pytest.mark.parametrize("text", ["- a\n", "labels: [\n", "optimizer: 5\n"])
def test_a_file_that_is_no_recipe_is_named_in_one_line(tmp_path: Path, text: str) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text(text)
    with pytest.raises(ValueError, match=re.escape(str(path))) as caught:
        config.load(path, overrides={"optimizer.lr": 1})
    assert "\n" not in str(caught.value)


def test_a_file_that_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"nowhere\.yaml"):
        config.load(tmp_path / "nowhere.yaml")


def test_recipes_are_read_without_torch() -> None:
    code = f"import sys, ismallnet.config as c; c.load({str(RECIPES[0])!r}); print('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "False\n"


def test_a_mistake_in_a_section_that_may_be_left_out_is_named(tmp_path: Path) -> None:
    recipe = tmp_path / "r.yaml"
    text = "data: {sets: [{name: a, mask_offset: {least: 1, most: 2, dx: 0, dy: 0}}]}"
    recipe.write_text(text)
    assert config.load(recipe).data.sets[0].mask_offset == MaskOffset(least=1, most=2, dx=0, dy=0)
    assert config.from_dict(config.to_dict(config.load(recipe))) == config.load(recipe)
    recipe.write_text(text.replace("least", "laest"))
    with pytest.raises(ValueError, match=r"mask_offset\.laest'; did you mean 'least'"):
        config.load(recipe)
    recipe.write_text(text.replace("most: 2", "most: 0"))
    with pytest.raises(ValueError, match=r"mask_offset\.least, most: got \(1, 0\), accepted is areas"):
        config.load(recipe)
