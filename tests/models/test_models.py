"""Contract of every network in MODELS, and the facts that are known of iSmallNet."""

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from ismallnet.models import MODELS, create_model, list_models

SMALL = {"widths": (4, 4, 6, 6, 8)}
"""Narrow enough for a test, every part present."""


def small(name: str, **options: object) -> nn.Module:
    torch.manual_seed(0)
    return create_model(name, **{**SMALL, **options})


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
    # 3 x 256 x 256, convolutions only; measured on the official code, shared/systems.md section 13
    [("ismallnet", 30.50), ("ismallnet-unet", 15.42), ("ismallnet-single", 14.44)],
)
def test_multiply_adds_equal_the_official_codes(name: str, gmac: float) -> None:
    model = create_model(name, in_channels=3).eval()
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(torch.rand(1, 3, 256, 256))
    assert counter.get_total_flops() / 2e9 == pytest.approx(gmac, abs=0.01)


def test_compact_network_keeps_its_budget() -> None:
    model = create_model("ismallnet-s").eval()
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(torch.rand(1, 1, 256, 256))
    assert parameters(model) <= 2_000_000
    assert counter.get_total_flops() / 2 <= 2.5e9


def test_official_option_has_exactly_the_528_dead_parameters() -> None:
    model = small("ismallnet", official=True, in_channels=3, fusion_width=16, widths=(16, 4, 6, 6, 8))
    logits = model.train()(torch.rand(2, 1, 32, 32))
    sum(x.sum() for x in logits[:3]).backward()
    assert sum(p.numel() for p in model.parameters() if p.grad is None) == 528


@pytest.mark.parametrize("name", list_models())
def test_every_parameter_gets_a_gradient(name: str) -> None:
    model = small(name).train()
    logits = model(torch.rand(2, 1, 64, 64))
    maps = [x for x in (*logits[:3], *logits.auxiliary) if x is not None]
    sum((x * torch.randn_like(x)).sum() for x in maps).backward()
    assert [n for n, p in model.named_parameters() if p.grad is None] == []


@pytest.mark.parametrize("name", list_models())
@pytest.mark.parametrize("size", [(16, 16), (17, 33), (50, 130), (96, 64)])
def test_any_size_from_16_on_gives_finite_logits_of_that_size(name: str, size: tuple[int, int]) -> None:
    model = small(name).eval()
    with torch.no_grad():
        logits = model(torch.rand(1, 1, *size))
    assert logits.target.shape == (1, 1, *size)
    assert all(x is None or (x.shape == logits.target.shape and x.isfinite().all()) for x in logits[:3])
    assert logits.auxiliary == ()


@pytest.mark.parametrize("name", list_models())
def test_saved_and_loaded_weights_give_the_same_scores(name: str) -> None:
    model, image = small(name), torch.rand(2, 1, 48, 48)
    with torch.no_grad():
        model.train()(image)  # moves the batch-norm statistics off their initial values
        other = create_model(name, **SMALL)
        other.load_state_dict(model.state_dict())
        assert torch.equal(model.eval().score(image), other.eval().score(image))


@pytest.mark.parametrize("name", list_models())
def test_bf16_autocast_stays_close_to_float32_and_returns_float32(name: str) -> None:
    model, image = small(name).eval(), torch.rand(1, 1, 64, 64)
    with torch.no_grad():
        exact = model(image).target
        with torch.autocast("cpu", torch.bfloat16):
            rough = model(image).target
    assert rough.dtype == torch.float32
    assert (rough - exact).abs().max() < 0.05 * exact.abs().max()


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


@pytest.mark.parametrize("shape", [(1, 32, 32), (1, 2, 32, 32), (32, 32)])
def test_wrong_shape_is_refused_with_the_accepted_one(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"expected \(B, 1, H, W\)"):
        small("ismallnet-s")(torch.rand(shape))


@pytest.mark.parametrize(
    "options",
    [
        {"streams": "inner"},
        {"encoder": "vgg"},
        {"fusion": "mean"},
        {"in_channels": 2},
        {"depths": (1, 2)},
        {"widths": (4, 4), "depths": (1, 1), "decoder_depths": (1,), "official": True},
    ],
)
def test_wrong_option_is_refused(options: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"choose from|give one width|five levels"):
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
