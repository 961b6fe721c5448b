"""The nested decoder: which neighbours a node reads, seen through identity nodes."""

import pytest
import torch
from torch import nn

from ismallnet.models.nested import WIRINGS, NestedDecoder

WIDTHS = (2, 3, 5, 7)


class Spy(nn.Module):
    """A node that keeps what it was given."""

    def __init__(self, inputs: int, width: int) -> None:
        super().__init__()
        self.inputs, self.width = inputs, width

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        assert x.shape[1] == self.inputs
        self.seen = x
        return x.new_full((x.shape[0], self.width, *x.shape[2:]), float(x.mean()))


def decoder(wiring: str) -> NestedDecoder:
    return NestedDecoder(WIDTHS, wiring=wiring, depths=(1, 1, 1), block=Spy)


@pytest.mark.parametrize(
    ("wiring", "expected"),
    [
        # worked out by hand from the table in nested.py for widths 2, 3, 5, 7
        ("unet", {"2_1": 5 + 7, "1_2": 3 + 5, "0_3": 2 + 3}),
        (
            "unet++",
            {"0_1": 2 + 3, "1_1": 3 + 5, "0_2": 4 + 3, "2_1": 5 + 7, "1_2": 6 + 5, "0_3": 6 + 3},
        ),
        (
            "dna",
            {"0_1": 5, "1_1": 8 + 2, "0_2": 7, "2_1": 12 + 3, "1_2": 11 + 2, "0_3": 9},
        ),
        (
            "mnim",
            {"0_1": 5, "1_1": 8 + 4, "0_2": 7, "2_1": 12 + 6, "1_2": 11 + 4, "0_3": 9},
        ),
    ],
)
def test_each_wiring_reads_the_neighbours_of_its_figure(wiring: str, expected: dict[str, int]) -> None:
    nodes = decoder(wiring).nodes
    assert {name: node[0].inputs for name, node in nodes.items()} == expected


@pytest.mark.parametrize("wiring", WIRINGS)
def test_returns_the_last_diagonal_at_every_resolution(wiring: str) -> None:
    features = [torch.rand(1, w, 32 >> i, 48 >> i) for i, w in enumerate(WIDTHS)]
    outputs = decoder(wiring)(features)
    assert [tuple(x.shape[1:]) for x in outputs] == [(2, 32, 48), (3, 16, 24), (5, 8, 12), (7, 4, 6)]
    assert outputs[-1] is features[-1]


def test_mnim_orders_its_inputs_as_equation_2_and_the_official_code() -> None:
    """X[1, 1] reads X[1, 0], U(X[2, 0]), P(X[0, 0]), P(X[0, 1]) in this order (constants pass unchanged)."""
    features = [torch.full((1, w, 16 >> i, 16 >> i), 10.0 * (i + 1)) for i, w in enumerate(WIDTHS)]
    mnim = decoder("mnim")
    mnim(features)
    row, below = [20.0] * 3, [30.0] * 5
    first = (2 * 10 + 3 * 20) / 5  # X[0, 1]: the mean of its inputs, since Spy averages
    seen = mnim.nodes["1_1"][0].seen[0, :, 0, 0].tolist()
    assert seen == pytest.approx([*row, *below, 10, 10, first, first])


def test_max_halving_keeps_a_single_bright_pixel_that_bilinear_halving_dilutes() -> None:
    point = torch.zeros(1, 1, 8, 8)
    point[0, 0, 3, 3] = 1
    halved = {
        down: NestedDecoder((1, 1), depths=(1,), block=Spy, down=down)._halve(point)
        for down in ("max", "bilinear")
    }
    assert halved["max"].max() == 1
    assert halved["bilinear"].max() < 1


@pytest.mark.parametrize("option", [{"wiring": "unte"}, {"down": "mean"}])
def test_unknown_choice_is_refused_with_the_choices(option: dict[str, str]) -> None:
    with pytest.raises(ValueError, match="choose from"):
        NestedDecoder(WIDTHS, depths=(1, 1, 1), block=Spy, **option)
