"""Objectives: who is stepped by what and in which order, and that the loop serves them all."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from ismallnet import config, detector, history
from ismallnet.config import Recipe
from ismallnet.data.augment import Batch
from ismallnet.losses import LabelDecouplingLoss
from ismallnet.models import create_model
from ismallnet.models.tbcnet import Classifier
from ismallnet.objectives import (
    OBJECTIVES,
    Objective,
    Part,
    Turn,
    count_classes,
    make_objective,
    masks_to_count,
)
from ismallnet.train import train
from tiny import MODEL, recipe, write_images

MODELS = {
    "supervised": MODEL,
    "adversarial": {"name": "mdvsfa", "options": {"miss_widths": [2] * 8, "false_alarm_width": 2}},
    "two-stage": {"name": "tbcnet", "options": {"widths": [4, 4]}},
}
PARTS = {
    "supervised": ["network"],
    "adversarial": ["discriminator", "miss", "false_alarm"],
    "two-stage": ["classifier", "network"],
}


def settings(
    root: Path, name: str, *, objective: dict[str, object] | None = None, **training: object
) -> Recipe:
    """A recipe of a few steps with an objective."""
    sides = {"adversarial": 128, "two-stage": 32, "supervised": 32}
    stages = [{"sizes": [sides[name]], "batch": 2}]
    tree = config.to_dict(recipe(root, **{"stages": stages, **training}))
    return config.from_dict(
        {**tree, "model": MODELS[name], "objective": {"name": name, "first_stage": 0.5, **(objective or {})}}
    )


def made(name: str, **objective: object) -> tuple[Objective, dict[str, Part]]:
    torch.manual_seed(0)
    one = settings(Path(), name, objective=objective)
    whole = make_objective(create_model(one.model.name, **one.model.options), one).train()
    return whole, {part: Part(module, module) for part, module in whole.parts().items()}


def batch(side: int, count: int = 2) -> Batch:
    torch.manual_seed(1)
    image, target = torch.rand(count, 1, side, side), torch.zeros(count, 1, side, side)
    target[:, :, 5:8, 9:12] = 1
    return Batch(image, target, target, target)


def turns(name: str, done: float, **objective: object) -> tuple[Objective, Iterator[Turn]]:
    whole, parts = made(name, **objective)
    return whole, whole.turns(parts, batch(128 if name == "adversarial" else 32), done)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_images(tmp_path_factory.mktemp("objectives") / "mine")


def test_the_supervised_objective_is_one_turn_by_the_loss_of_the_recipe() -> None:
    whole, steps = turns("supervised", 0.0)
    (turn,) = steps
    crops = batch(32)
    logits = whole.network(crops.image)
    assert (turn.part, turn.loss.item()) == ("network", LabelDecouplingLoss()(logits, *crops[1:]).item())
    assert torch.equal(turn.logits, logits.target)


def test_discriminator_first_and_second_generator_take_turns() -> None:
    _, steps = turns("adversarial", 0.0)
    assert [turn.part for turn in steps] == PARTS["adversarial"]


@pytest.mark.parametrize(("name", "done"), [("adversarial", 0.0), ("two-stage", 0.0), ("two-stage", 0.5)])
def test_a_loss_reaches_the_weights_of_its_own_part_and_no_others(name: str, done: float) -> None:
    whole, steps = turns(name, done)
    for turn in steps:
        whole.zero_grad()
        turn.loss.backward()
        for part, module in whole.parts().items():
            reached = {weight.grad is not None for weight in module.parameters()}
            assert reached == {part == turn.part}


@pytest.mark.parametrize(("name", "done"), [("adversarial", 0.0), ("two-stage", 0.5)])
def test_only_the_batch_statistics_of_the_part_whose_turn_it_is_move(name: str, done: float) -> None:
    whole, steps = turns(name, done)

    def statistics() -> dict[str, Tensor]:
        buffers = {part: dict(module.named_buffers()) for part, module in whole.parts().items()}
        return {part: torch.cat([b.flatten() for b in values.values()]) for part, values in buffers.items()}

    before = statistics()
    for turn in steps:
        after = statistics()
        assert {p for p in after if not torch.equal(before[p], after[p])} == {turn.part}
        before = after
    assert all(module.training for module in whole.modules())
    assert all(weight.requires_grad for weight in whole.parameters())


def test_a_turn_sees_the_weights_that_the_turn_before_made() -> None:
    losses = []
    for stepped in (False, True):
        whole, steps = turns("adversarial", 0.0)
        next(steps)
        if stepped:
            with torch.no_grad():
                whole.discriminator.features[-1][0].weight.mul_(-3)
        losses.append(next(steps).loss.item())
    assert losses[0] != losses[1]


def test_the_generators_fits_weigh_missed_targets_and_false_alarms_as_the_paper_says() -> None:
    terms = {"adversarial": 0, "consistency": 0, "fit": 2, "lambda1": 7, "lambda2": 5}
    whole, steps = turns("adversarial", 0.0, **terms)
    crops = batch(128)
    image, truth = 2 * crops.image - 1, crops.target
    _, miss, false_alarm = (turn.loss.item() for turn in steps)
    with torch.no_grad():
        first = (whole.network.miss(image).clamp(0, 1) - truth).square()
        second = (whole.network.false_alarm(image).clamp(0, 1) - truth).square()
    size = truth.numel()
    missed = [float(error[truth == 1].sum()) / size for error in (first, second)]
    false = [float(error[truth == 0].sum()) / size for error in (first, second)]
    assert miss == pytest.approx(2 * (7 * missed[0] + false[0]), rel=1e-5)
    assert false_alarm == pytest.approx(2 * (missed[1] + 5 * false[1]), rel=1e-5)


def test_maps_that_are_alike_are_consistent_and_a_fooled_discriminator_costs_least() -> None:
    whole, steps = turns("adversarial", 0.0, fit=0, adversarial=0, consistency=1)
    generators = (whole.network.miss, whole.network.false_alarm)
    for generator in generators:
        nn.init.zeros_(generator.predict.weight)
        nn.init.constant_(generator.predict.bias, 0.25)
    assert [turn.loss.item() for turn in steps][1:] == [0, 0]

    whole, steps = turns("adversarial", 0.0, fit=0, adversarial=1, consistency=0)
    nn.init.zeros_(whole.discriminator.decide[-1].weight)
    whole.discriminator.decide[-1].bias.data = torch.tensor([20.0, 0.0, 0.0])  # "all of it is the truth"
    # by hand: probabilities (1, 0, 0) against the wanted (1, 0, 0), (0, 1, 0), (0, 0, 1)
    right = (0.313262 + 2 * 0.693147) / 3
    wrong = (1.313262 + 2 * 0.693147) / 3
    expected = [right + 2 * wrong, right, right]
    assert [turn.loss.item() for turn in steps] == pytest.approx(expected, abs=1e-5)


def test_the_two_stages_part_where_the_recipe_says() -> None:
    seen = [[turn.part for turn in turns("two-stage", done)[1]] for done in (0.0, 0.49, 0.5, 0.99)]
    assert seen == [["classifier"], ["classifier"], ["network"], ["network"]]


def test_the_classifiers_gradient_reaches_the_network_through_it() -> None:
    gradients = []
    for semantic in (0, 1):
        whole, steps = turns("two-stage", 0.5, semantic=semantic)
        next(steps).loss.backward()
        gradients.append(whole.network.head.weight.grad.clone())
    assert (gradients[1] - gradients[0]).abs().max() > 1e-4


def test_the_class_is_the_number_of_components_and_at_most_six() -> None:
    masks = torch.zeros(4, 1, 20, 20)
    masks[1, 0, 2:4, 2:4] = 1
    masks[1, 0, 4, 4] = 0.5  # touches it by a corner, just on
    masks[1, 0, 10, 10] = 0.49  # just off
    masks[2, 0, [1, 1, 9], [1, 3, 9]] = 1
    masks[3, 0, ::4, ::4] = 1  # 25 of them
    assert count_classes(masks).tolist() == [0, 1, 3, 6]


def test_the_classifier_learns_from_true_perturbed_and_empty_masks() -> None:
    torch.manual_seed(0)
    truth = torch.zeros(8, 1, 32, 32)
    for index in range(8):
        truth[index, 0, 3 * index : 3 * index + 2, 3 * index : 3 * index + 2] = 1
    masks, classes = masks_to_count(truth)
    assert (masks.shape, classes.shape) == ((18, 1, 32, 32), (18,))
    assert torch.equal(masks[:8], truth)
    assert not masks[16:].any()
    assert classes[:8].tolist() == [1] * 8
    assert classes[16:].tolist() == [0, 0]
    perturbed = masks[8:16]
    assert perturbed.min() >= 0
    assert perturbed.max() <= 1
    assert torch.equal(count_classes((perturbed > 0.3).float()), classes[8:16])  # noise ends at 0.1
    assert classes[8:16].max() > 1


@pytest.mark.parametrize("name", OBJECTIVES)
def test_the_loop_serves_every_objective_and_its_run_is_a_detector(
    name: str, root: Path, tmp_path: Path
) -> None:
    result = train(settings(root, name, steps=4, fold=0), out=tmp_path / "run")
    assert result.finished
    stored = load_file(tmp_path / "run" / "last" / "model.safetensors")
    one = settings(root, name)
    assert stored.keys() == create_model(one.model.name, **one.model.options).state_dict().keys()
    found = detector.load(tmp_path / "run")(torch.rand(40, 48).numpy())
    assert found.score.shape == (40, 48)


@pytest.mark.parametrize("name", OBJECTIVES)
def test_the_history_tells_the_losses_of_the_parts(name: str, root: Path, tmp_path: Path) -> None:
    train(settings(root, name, steps=4), out=tmp_path / "run")
    rows = history.read(tmp_path / "run" / "history.csv")
    losses = [{key for key in row if key.startswith("loss_")} for row in rows]
    if name == "supervised":
        assert losses == [set()] * 4
    elif name == "adversarial":
        assert losses == [{f"loss_{part}" for part in PARTS[name]}] * 4
        assert all(
            row["loss"] == pytest.approx(sum(row[f"loss_{part}"] for part in PARTS[name])) for row in rows
        )
    else:
        assert losses == [{"loss_classifier"}] * 2 + [{"loss_network"}] * 2
    stage = {"two-stage": [False, False, True, True]}.get(name, [True] * 4)
    assert ["iou" in row for row in rows] == stage


def state(run: Path) -> dict[str, Tensor]:
    return load_file(next(run.glob("state-*")) / "state.safetensors")


@pytest.mark.parametrize("name", OBJECTIVES)
def test_a_run_stopped_at_every_step_ends_as_one_that_was_not(name: str, root: Path, tmp_path: Path) -> None:
    options = {"steps": 3, "optimizer": {"name": "adamw", "momentum": 0.5}}
    train(settings(root, name, **options), out=tmp_path / "whole")
    for step in range(1, 4):
        stopped = train(
            settings(root, name, max_minutes=1e-9, **options), out=tmp_path / "parts", resume=True
        )
        assert stopped.step == step
    one, other = state(tmp_path / "whole"), state(tmp_path / "parts")
    assert one.keys() == other.keys()
    assert [key for key in one if not torch.equal(one[key], other[key])] == []
    groups = {key.split(".")[0] for key in one}
    assert groups == {"objective", "average", *(f"optimizer-{part}" for part in PARTS[name])}


def test_the_second_stage_leaves_the_classifier_as_it_is(root: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    states = [{}]
    for _ in range(4):
        train(settings(root, "two-stage", steps=4, max_minutes=1e-9), out=out, resume=True)
        states.append({key: t for key, t in state(out).items() if key.startswith("objective.")})
    after_first, after_second = states[2], states[4]
    moved = {key.split(".")[1] for key in after_first if not torch.equal(after_first[key], after_second[key])}
    assert moved == {"network"}
    moved = {key.split(".")[1] for key in states[1] if not torch.equal(states[1][key], after_first[key])}
    assert moved == {"classifier"}


def test_the_discriminator_learns_to_tell_the_truth_from_the_maps(root: Path, tmp_path: Path) -> None:
    one = settings(root, "adversarial", steps=30, optimizer={"lr": 1e-2}, objective={"discriminator_lr": 1.0})
    train(one, out=tmp_path / "run")
    rows = history.read(tmp_path / "run" / "history.csv")
    assert sum(row["loss_miss"] for row in rows[-5:]) < sum(row["loss_miss"] for row in rows[:5])
    assert sum(row["loss_discriminator"] for row in rows[-5:]) < 5 * 3 * 0.7625  # what a guess costs


@pytest.mark.parametrize(
    ("model", "sizes", "message"),
    [
        (
            "adversarial",
            [64],
            r"got \[64\]; the discriminator takes crops of 128×128, so set sizes to \[128\]",
        ),
        ("adversarial", [96, 128], r"got \[96, 128\]; the discriminator"),
        ("two-stage", [128], "the objective adversarial trains mdvsfa, got tbcnet"),
    ],
)
def test_what_the_adversarial_objective_cannot_train_is_refused_before_the_run(
    model: str, sizes: list[int], message: str, root: Path, tmp_path: Path
) -> None:
    tree = config.to_dict(settings(root, "adversarial", stages=[{"sizes": sizes, "batch": 2}]))
    one = config.from_dict({**tree, "model": MODELS[model]})
    with pytest.raises(ValueError, match=message):
        train(one, out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def with_model(root: Path, name: str, *, objective: str = "supervised", **stage: object) -> Recipe:
    """A recipe of one stage for a network of the table."""
    narrow = {"acm": {"blocks": 1}, "alcnet": {"blocks": 1}, "dnanet": {"backbone": "resnet10"}}
    options = narrow.get(name, MODEL["options"])
    tree = config.to_dict(recipe(root, steps=1, stages=[stage]))
    model = {"name": name, "options": options}
    return config.from_dict({**tree, "model": model, "objective": {"name": objective}})


@pytest.mark.parametrize("objective", ["supervised", "two-stage"])
def test_crops_that_the_network_would_mirror_are_refused_before_the_run(
    objective: str, root: Path, tmp_path: Path
) -> None:
    one = with_model(root, "alcnet", objective=objective, sizes=[96, 71], batch=2)
    with pytest.raises(ValueError, match=r"sizes: got \[96, 71\]; alcnet takes crops of at least 72×72"):
        train(one, out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_every_stage_is_looked_at() -> None:
    tree = config.to_dict(with_model(Path(), "alcnet", sizes=[72], batch=2))
    tree["training"]["stages"].append({"sizes": [64], "batch": 2})
    one = config.from_dict(tree)
    with pytest.raises(ValueError, match=r"got \[64\]; alcnet"):
        make_objective(create_model("alcnet", blocks=1), one)


@pytest.mark.parametrize(
    ("name", "objective", "side"),
    # a batch norm of ACM sees a global mean an image; at one multiple the coarsest level is one pixel
    [
        ("acm", "supervised", 32),
        ("acm", "two-stage", 64),
        ("ismallnet", "supervised", 16),
        ("ismallnet-s", "supervised", 32),
        ("dnanet", "supervised", 16),
    ],
)
def test_a_batch_too_small_for_the_batch_norms_is_refused_before_the_run(
    name: str, objective: str, side: int, root: Path, tmp_path: Path
) -> None:
    one = with_model(root, name, objective=objective, sizes=[side], batch=1)
    expected = rf"batch: got 1; on crops of {side}×{side} {name} needs at least 2 images a process, so"
    with pytest.raises(ValueError, match=expected):
        train(one, out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("name", "stage"),
    [
        ("acm", {"sizes": [32], "batch": 1, "batch_norm": "frozen"}),
        ("acm", {"sizes": [16], "batch": 2}),
        ("alcnet", {"sizes": [72], "batch": 1}),
        ("dnanet", {"sizes": [17], "batch": 1}),
        ("ismallnet", {"sizes": [17], "batch": 1}),
        ("ismallnet-s", {"sizes": [33], "batch": 1}),
    ],
)
def test_the_least_that_is_accepted_trains(
    name: str, stage: dict[str, object], root: Path, tmp_path: Path
) -> None:
    assert train(with_model(root, name, **stage), out=tmp_path / "run").finished


def test_the_images_of_a_process_count_where_each_normalises_by_its_own() -> None:
    one = with_model(Path(), "acm", sizes=[32], batch=2)
    network = create_model("acm", blocks=1)
    assert make_objective(network, one).network is network
    with pytest.raises(ValueError, match=r"got 2 for 2 processes; .* so set batch to 4 or more"):
        make_objective(network, one, shares=2)


@pytest.mark.parametrize(
    ("name", "options", "maps"),
    [
        ("ismallnet-s", {}, "interior, boundary"),
        ("ismallnet-s", {"streams": "interior"}, "interior"),
        ("ismallnet-s", {"streams": "unsupervised", "deep": True}, "auxiliary"),
        ("dnanet", {"backbone": "resnet10"}, "auxiliary"),
    ],
)
def test_two_stages_are_refused_for_maps_that_they_do_not_train(
    name: str, options: dict[str, object], maps: str, root: Path, tmp_path: Path
) -> None:
    tree = config.to_dict(settings(root, "two-stage"))
    model = {"name": name, "options": {**options, **(MODEL["options"] if name == MODEL["name"] else {})}}
    expected = f"trains the target's map alone, {name} answers with {maps} too; leave these out"
    with pytest.raises(ValueError, match=expected):
        train(config.from_dict({**tree, "model": model}), out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("ismallnet-s", {**MODEL["options"], "streams": "none", "detail": 0}),
        ("ismallnet-s", {**MODEL["options"], "streams": "unsupervised"}),
        ("dnanet", {"backbone": "resnet10", "deep": False}),
        ("acm", {"blocks": 1}),
    ],
)
def test_two_stages_train_any_network_with_one_head_and_leave_it_as_it_was_to_begin(
    name: str, options: dict[str, object]
) -> None:
    one = config.from_dict(
        {**config.to_dict(settings(Path(), "two-stage")), "model": {"name": name, "options": options}}
    )
    torch.manual_seed(0)
    network = create_model(name, **options)
    before = {key: tensor.clone() for key, tensor in network.state_dict().items()}
    random = torch.get_rng_state()
    whole = make_objective(network, one)
    assert all(torch.equal(before[key], tensor) for key, tensor in whole.network.state_dict().items())
    torch.set_rng_state(random)
    first = Classifier().state_dict()
    assert all(torch.equal(first[key], tensor) for key, tensor in whole.classifier.state_dict().items())


def test_parts_hold_every_weight_once() -> None:
    for name in OBJECTIVES:
        whole, parts = made(name)
        assert list(parts) == PARTS[name]
        weights = list(itertools.chain.from_iterable(part.module.parameters() for part in parts.values()))
        assert {id(weight) for weight in weights} == {id(weight) for weight in whole.parameters()}
        assert len(weights) == len({id(weight) for weight in weights})


def test_the_parts_have_the_rates_of_the_recipe() -> None:
    adversarial, _ = made("adversarial", discriminator_lr=0.3)
    assert [adversarial.factor(part) for part in PARTS["adversarial"]] == [0.3, 1, 1]
    two_stage, _ = made("two-stage", classifier_lr=2.0)
    assert [two_stage.factor(part) for part in PARTS["two-stage"]] == [2, 1]


def test_a_fixed_part_hands_gradients_on_and_keeps_none() -> None:
    classifier = Classifier().train()
    part = Part(classifier, classifier)
    maps = torch.rand(2, 1, 16, 16, requires_grad=True)
    part.fixed(maps).sum().backward()
    assert maps.grad is not None
    assert maps.grad.abs().max() > 0
    assert all(weight.grad is None for weight in classifier.parameters())
