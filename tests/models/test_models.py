"""Contract of every network in MODELS, and the facts that are known of iSmallNet."""

import re
from collections.abc import Collection
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from ismallnet import checkpoint, config, data
from ismallnet.data.augment import Batch
from ismallnet.models import MODELS, create_model
from ismallnet.models.ismallnet import DetailHead, ISmallNet
from ismallnet.objectives import Part, make_objective
from ismallnet.optim import make_optimizer

ROOT = Path(__file__).parents[2]
SMALL: dict[str, dict[str, object]] = {
    "acm": {"blocks": 1},
    "alcnet": {"blocks": 1},
    "dnanet": {"backbone": "resnet10"},
    "mdvsfa": {"miss_widths": (4,) * 8, "false_alarm_width": 4},
    "tbcnet": {"widths": (4, 4, 6, 8)},
}
"""Options with which a network is small enough for a test, every part present; others are as they are."""
NARROW = {"widths": (4, 4, 6, 6, 8)}
"""Likewise for every form of iSmallNet."""
BEFORE_NORM = re.compile(
    r"\b(shortcut|body|top_down|bottom_up|merge|gate|layers\.\d+|features\.\d|levels\.\d|decide\.\d)\.[03]\.bias$"
    r"|\bconv[12]\.bias$|^decide\.2\.bias$"
)
"""Biases that a batch norm subtracts again, such as `fuse.1.top_down.0.bias` of `acm`: their gradient is
rounding, or 0."""


def options_of(name: str, **options: object) -> dict[str, object]:
    return {**SMALL.get(name, NARROW if MODELS[name].build is ISmallNet else {}), **options}


def small(name: str, **options: object) -> nn.Module:
    torch.manual_seed(0)
    return create_model(name, **options_of(name, **options))


def every(*, slow: Collection[str] = ()) -> pytest.MarkDecorator:
    """Every network of the table; those named with the mark `slow`."""
    names = [pytest.param(name, marks=pytest.mark.slow if name in slow else ()) for name in MODELS]
    return pytest.mark.parametrize("name", names)


def without_gradient(module: nn.Module) -> list[str]:
    """Weights that should have one and have none, or one of zeros."""
    trained = [(n, p) for n, p in module.named_parameters() if p.requires_grad and not BEFORE_NORM.search(n)]
    return [n for n, p in trained if p.grad is None or not p.grad.any()]


def parameters(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize(
    ("name", "count"),
    # three input channels; read off the official code, shared/systems.md sections 12 and 13
    [
        ("ismallnet", 9_688_461),
        ("ismallnet-unet", 8_192_585),
        ("ismallnet-unet++", 9_135_501),
        ("ismallnet-dna", 9_411_981),
        ("ismallnet-single", 4_831_685),
    ],
)
def test_parameter_counts_equal_the_official_codes(name: str, count: int) -> None:
    assert parameters(create_model(name, in_channels=3)) == count


def test_grey_input_saves_640_parameters() -> None:
    assert parameters(create_model("ismallnet")) == 9_687_821


@pytest.mark.parametrize(
    ("name", "gmac"),
    # 3 x 256 x 256, convolutions only; iSmallNet's: measured on the official code, systems.md section 13;
    # acm, alcnet: 6.54 and 3.592 for one channel, sections 9 and 10, and two channels more of the first 3x3
    # convolution, 2 · 9 · 16 · 256² = 0.019e9
    [
        ("ismallnet", 30.50),
        ("ismallnet-unet", 15.42),
        ("ismallnet-unet++", 28.49),
        ("ismallnet-dna", 29.50),
        ("ismallnet-single", 14.44),
        ("acm", 6.56),
        ("alcnet", 3.61),
    ],
)
def test_multiply_adds_equal_the_official_codes(name: str, gmac: float) -> None:
    assert multiply_adds(create_model(name, in_channels=3)) == pytest.approx(gmac, abs=0.01)


def test_multiply_adds_of_the_paper_read_literally_are_those_of_the_document() -> None:
    # docs/networks.md; nothing is released to measure
    model = create_model("ismallnet-paper", in_channels=3)
    assert multiply_adds(model) == pytest.approx(57.44, abs=0.005)


def multiply_adds(model: nn.Module) -> float:
    """Of one 3 x 256 x 256 image, in 1e9."""
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model.eval()(torch.rand(1, 3, 256, 256))
    return float(counter.get_total_flops() / 2e9)


def test_compact_network_keeps_its_budget() -> None:
    model = create_model("ismallnet-s").eval()
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(torch.rand(1, 1, 256, 256))
    assert parameters(model) <= 2_000_000
    assert counter.get_total_flops() / 2 <= 2.5e9


def test_official_option_has_exactly_the_528_dead_parameters_of_the_finest_level() -> None:
    # Decoder3 of the official train/net.py sends x1_3 and x0_4 through conv1_1x1; conv0_1x1 is never called
    model = small("ismallnet", official=True, in_channels=3, fusion_width=16, widths=(16, 4, 6, 6, 8))
    logits = model.train()(torch.rand(2, 1, 32, 32))
    sum(x.sum() for x in logits[:3]).backward()
    dead = {name: p.numel() for name, p in model.named_parameters() if p.grad is None}
    assert dead == {"fuse.project.0.weight": 512, "fuse.project.0.bias": 16}


@every()
def test_every_parameter_gets_a_gradient_that_is_not_zero(name: str) -> None:
    model = small(name).train()  # seed 0
    logits = model(torch.rand(2, 1, 64, 64))
    maps = [x for x in (*logits[:3], *logits.auxiliary) if x is not None]
    sum((x * torch.randn_like(x)).sum() for x in maps).backward()
    assert without_gradient(model) == []


@every(slow=["dnanet"])
def test_the_recipes_objective_trains_every_parameter_at_the_recipes_crop(name: str) -> None:
    recipe = config.load(ROOT / MODELS[name].recipe)
    options = recipe.model.options if recipe.model.name == name else {}
    whole = make_objective(small(name, **options), recipe).train()  # seed 0
    parts = {part: Part(module, module) for part, module in whole.parts().items()}
    side = recipe.training.stages[0].sizes[0]
    image, mask = torch.rand(2, 1, side, side), torch.zeros(2, 1, side, side)
    mask[:, :, 30:34, 50:55] = 1
    crops = Batch((image + mask) / 2, mask, mask, mask)
    stepped: set[str] = set()
    for done in (0.0, 0.99):  # both of two stages
        for turn in whole.turns(parts, crops, done) if stepped != parts.keys() else ():
            module = parts[turn.part].module
            module.zero_grad()
            turn.loss.backward()
            assert without_gradient(module) == [], turn.part
            make_optimizer(module, recipe.optimizer).step()
            assert all(weight.isfinite().all() for weight in module.parameters())
            stepped.add(turn.part)
    assert stepped == parts.keys()


@every()
@pytest.mark.parametrize("count", [1, 3])
def test_a_batch_gets_the_maps_of_its_images_one_by_one(name: str, count: int) -> None:
    model, images = small(name).eval(), torch.rand(count, 1, 50, 72)
    with torch.no_grad():
        together = model(images)
        alone = [model(image[None]) for image in images]
    for field in ("target", "interior", "boundary"):
        maps = [getattr(logits, field) for logits in (together, *alone)]
        if maps[0] is None:
            assert maps == [None] * (count + 1)
            continue
        whole, *single = (torch.sigmoid(x) for x in maps)
        assert whole.shape == images.shape
        assert torch.allclose(whole, torch.cat(single), atol=1e-5)
    assert count == 1 or not torch.allclose(together.target[0], together.target[1], atol=1e-5)


@every()
@pytest.mark.parametrize("size", [(1, 1), (1, 40), (16, 16), (17, 33), (50, 130), (96, 64)])
def test_any_size_gives_finite_logits_of_that_size(name: str, size: tuple[int, int]) -> None:
    model = small(name).eval()
    with torch.no_grad():
        logits = model(torch.rand(1, 1, *size))
    assert logits.target.shape == (1, 1, *size)
    assert all(x is None or (x.shape == logits.target.shape and x.isfinite().all()) for x in logits[:3])
    assert logits.auxiliary == ()


@every()
def test_a_saved_and_loaded_network_gives_the_same_maps(name: str, tmp_path: Path) -> None:
    model, image = small(name), torch.rand(2, 1, 48, 48)
    with torch.no_grad():
        model.train()(image)  # moves the batch-norm statistics off their initial values
        checkpoint.save_model(tmp_path / "model", model, name=name, options=options_of(name))
        other, saved = checkpoint.load_model(tmp_path / "model")
        expected, got = model.eval()(image), other(image)
    assert (saved.name, type(other)) == (name, type(model))
    assert [x is None for x in got[:3]] == [x is None for x in expected[:3]]
    assert all(torch.equal(a, b) for a, b in zip(got[:3], expected[:3], strict=True) if a is not None)


@every()
def test_bf16_autocast_stays_close_to_float32_and_returns_float32(name: str) -> None:
    model, image = small(name).eval(), torch.rand(1, 1, 64, 64)
    with torch.no_grad():
        exact = model(image).target
        with torch.autocast("cpu", torch.bfloat16):
            rough = model(image).target
    assert rough.dtype == torch.float32
    assert (rough - exact).abs().max() < 0.05 * exact.abs().max()


@every(slow=["ismallnet", "ismallnet-unet", "ismallnet-unet++", "ismallnet-dna", "ismallnet-paper"])
def test_the_exported_graph_gives_the_same_scores(name: str) -> None:
    model, image = small(name).eval(), torch.rand(1, 1, 50, 64)
    with torch.no_grad():
        exported = torch.export.export(model, (image,)).module()
        assert torch.allclose(exported(image).target, model(image).target, atol=1e-5)


@pytest.mark.parametrize(
    ("streams", "interior", "boundary"),
    [
        ("both", True, True),
        ("interior", True, False),
        ("boundary", False, True),
        ("none", False, False),
        ("unsupervised", False, False),
    ],
)
def test_streams_decide_which_maps_are_predicted(streams: str, *, interior: bool, boundary: bool) -> None:
    logits = small("ismallnet", streams=streams).eval()(torch.rand(1, 1, 32, 32))
    assert (logits.interior is not None, logits.boundary is not None) == (interior, boundary)


def test_unsupervised_streams_are_as_large_as_supervised_ones_but_for_their_two_heads() -> None:
    both, neither = create_model("ismallnet"), create_model("ismallnet", streams="unsupervised")
    assert parameters(both) - parameters(neither) == 2 * 145


def test_deep_supervision_predicts_one_map_a_level_in_training_only() -> None:
    model, image = small("ismallnet-s", deep=True), torch.rand(2, 1, 64, 64)
    assert [x.shape for x in model.train()(image).auxiliary] == [image.shape] * 5
    assert model.eval()(image).auxiliary == ()


def test_normalisation_belongs_to_the_model_and_travels_with_its_weights() -> None:
    image = torch.rand(1, 1, 32, 32)
    model = small("ismallnet-s", mean=(0.0,), std=(1.0,)).eval()
    shifted = small("ismallnet-s", mean=(0.25,), std=(0.5,)).eval()
    assert {"mean", "std"} <= set(model.state_dict())
    with torch.no_grad():
        assert torch.allclose(shifted(image).target, model((image - 0.25) / 0.5).target, atol=1e-5)


@pytest.mark.parametrize(
    ("channels", "mean", "std"),
    # 3: the official code's constants, shared/systems.md section 12, out of 255
    [
        (1, [0.4288], [0.2219]),
        (3, [124.55 / 255, 118.90 / 255, 102.94 / 255], [56.77 / 255, 55.97 / 255, 57.50 / 255]),
    ],
)
def test_each_layout_has_its_constants(channels: int, mean: list[float], std: list[float]) -> None:
    model = small("ismallnet", in_channels=channels)
    assert model.mean.flatten().tolist() == pytest.approx(mean)
    assert model.std.flatten().tolist() == pytest.approx(std)


def test_grey_constants_are_those_of_the_train_lists(data_root: Path) -> None:
    sets = [data.load(name, data_root, "train") for name in ("NUAA-SIRST", "NUDT-SIRST")]
    pixels = np.concatenate([sample.image.ravel() for dataset in sets for sample in dataset])
    model = small("ismallnet-s")
    assert model.mean.item() == pytest.approx(pixels.mean() / 255, abs=1e-4)
    assert model.std.item() == pytest.approx(pixels.std() / 255, abs=1e-4)


def test_prior_is_what_the_heads_predict_where_they_see_nothing() -> None:
    model = small("ismallnet-s", prior=0.01)
    for head in model.heads.values():
        nothing = torch.zeros(1, head.predict.in_channels, 4, 4)
        assert torch.allclose(torch.sigmoid(head.predict(nothing)), torch.tensor(0.01))


def test_three_channel_model_takes_grey_and_colour() -> None:
    model, grey = small("ismallnet", in_channels=3).eval(), torch.rand(1, 1, 32, 32)
    with torch.no_grad():
        assert torch.equal(model(grey).target, model(grey.expand(-1, 3, -1, -1)).target)


def test_folding_pixels_into_channels_loses_none() -> None:
    """A patch of 2 sees every pixel: changing any one changes the score."""
    model, image = small("ismallnet-s").eval(), torch.rand(1, 1, 32, 32)
    with torch.no_grad():
        before = model.score(image)
        for y, x in [(8, 8), (8, 9), (9, 8), (9, 9)]:
            other = image.clone()
            other[0, 0, y, x] += 0.5
            assert not torch.allclose(model.score(other), before)


def test_detail_head_gives_each_feature_the_pixels_under_it() -> None:
    """A change of one feature moves the logits of its own 2×2 pixels and of 3 pixels around them."""
    torch.manual_seed(0)
    head = DetailHead(3, 4, stride=2, in_channels=1).eval()
    features, image = torch.rand(1, 3, 12, 12), torch.rand(1, 1, 24, 24)
    other = features.clone()
    other[0, :, 5, 6] += 1
    with torch.no_grad():
        moved = (head(other, image) - head(features, image))[0, 0].abs() > 0
    assert moved.shape == (24, 24)
    rows, columns = moved.nonzero().unbind(1)
    # three 3×3 convolutions follow: two of the block, one that predicts
    assert (rows.min(), rows.max()) == (10 - 3, 11 + 3)
    assert (columns.min(), columns.max()) == (12 - 3, 13 + 3)


def test_detail_head_sees_the_image_at_full_resolution() -> None:
    """A pixel of the image moves the logits no further than six 3×3 convolutions reach."""
    torch.manual_seed(0)
    head = DetailHead(3, 4, stride=2, in_channels=1).eval()
    features, image = torch.rand(1, 3, 12, 12), torch.rand(1, 1, 24, 24)
    other = image.clone()
    other[0, 0, 11, 12] += 1
    with torch.no_grad():
        moved = (head(features, other) - head(features, image))[0, 0].abs() > 0
    rows, columns = moved.nonzero().unbind(1)
    assert (rows.min(), rows.max()) == (11 - 6, 11 + 6)
    assert (columns.min(), columns.max()) == (12 - 6, 12 + 6)


@pytest.mark.parametrize("encoder", ["plain", "resnet18"])
def test_detail_head_fits_every_encoder_and_keeps_any_size(encoder: str) -> None:
    model = small("ismallnet-s", encoder=encoder, detail=4, depths=(1, 2, 2, 2, 2)).eval()
    assert isinstance(model.heads["target"], DetailHead)
    with torch.no_grad():
        assert model(torch.rand(1, 1, 33, 50)).target.shape == (1, 1, 33, 50)


def test_compact_network_without_detail_has_a_head_like_the_full_ones() -> None:
    # 5,773 more, by hand for 48 channels in: image 144 + 32 + 4,672, unfolding 3,072, norm 32, merging
    # 512 + 32 + 4,672, prediction 145; less the other head's 6,928 + 32 + 580 (3×3, 48 to 16 and 16 to 4)
    assert parameters(create_model("ismallnet-s")) == 1_378_825
    assert parameters(create_model("ismallnet-s", detail=0)) == 1_373_052


@pytest.mark.parametrize("shape", [(1, 32, 32), (1, 2, 32, 32), (32, 32), (1, 1, 0, 32)])
def test_wrong_shape_is_refused_with_the_accepted_one(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"expected \(B, 1, H, W\)"):
        small("ismallnet-s")(torch.rand(shape))


@pytest.mark.parametrize(
    "options",
    [
        {"streams": "inner"},
        {"encoder": "vgg"},
        {"fusion": "mean"},
        {"share": "all"},
        {"in_channels": 2},
        {"depths": (1, 2)},
        {"encoder": "resnet18", "depths": (1, 3, 4, 6, 3)},
        {"mean": (0.5, 0.5, 0.5)},
        {"in_channels": 3, "std": (0.5,)},
        {"patch": 0},
        {"detail": 8},
        {"patch": 2, "detail": 8, "streams": "none"},
        {"prior": 0.0},
        {"widths": (4, 4), "depths": (1, 1), "decoder_depths": (1,), "official": True},
    ],
)
def test_wrong_option_is_refused(options: dict[str, object]) -> None:
    accepted = (
        r"choose from|give one width|five levels|has \(1, 2, 2, 2, 2\)|give one a channel|at least 1"
        r"|needs patch > 1|above 0 and below 1"
    )
    with pytest.raises(ValueError, match=accepted):
        create_model("ismallnet", **options)


def test_unknown_name_is_refused_with_the_nearest() -> None:
    with pytest.raises(ValueError, match="did you mean 'ismallnet-unet'"):
        create_model("ismallnet-unte")


def test_text_option_differs_from_the_code_where_the_paper_does() -> None:
    options = MODELS["ismallnet-paper"].options
    assert options["encoder"] == "resnet18"
    assert options["down"] == "max"
    assert options["fusion"] == "add"
    model = create_model("ismallnet-paper")
    sizes = []
    for stage in (model.encoders[0].stem, *model.encoders[0].stages):
        stage.register_forward_hook(lambda _m, _i, out: sizes.append(tuple(out.shape[1:])))
    with torch.no_grad():
        model.eval()(torch.rand(1, 1, 64, 96))
    first = [(64, 32, 48), (64, 16, 24), (128, 8, 12), (256, 4, 6), (512, 2, 3)]
    assert sizes[:5] == first  # "the size of F_i is W/2^i"


def test_unknown_option_is_refused_with_the_nearest() -> None:
    with pytest.raises(ValueError, match="unknown option of ismallnet-s: 'withs'; did you mean 'widths'"):
        create_model("ismallnet-s", withs=(8, 8, 8, 8, 8))
