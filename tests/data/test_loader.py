from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import torch

from ismallnet import config, labels
from ismallnet.config import Stage, Training
from ismallnet.data.loader import Order, Pool, Timetable, seed_of
from ismallnet.types import Sample


def sample(id: str, height: int, width: int, *, seed: int) -> Sample:
    random = np.random.default_rng(seed)
    mask = np.zeros((height, width), np.bool_)
    mask[3:8, 5:10] = True
    mask[height - 1, width - 1] = True
    return Sample(id, random.integers(0, 256, (height, width), np.uint8), mask)


SAMPLES = [sample("a", 20, 30, seed=1), sample("b", 17, 16, seed=2)]


@pytest.mark.parametrize("recipe", ["official", "target"])
def test_a_pool_holds_images_masks_and_labels_byte_for_byte(recipe: str) -> None:
    pool = Pool.of(SAMPLES, recipe=recipe)
    for number, one in enumerate(SAMPLES):
        begin, count = int(pool.start[number]), one.mask.size
        planes = pool.pixels[begin : begin + count].numpy().view(np.uint8).reshape(*one.mask.shape, 4)
        decoupled = labels.decouple(one.mask, recipe=recipe)
        expected = [one.image, one.mask * 255, decoupled.interior, decoupled.boundary]
        for plane, truth in zip(np.moveaxis(planes, 2, 0), expected, strict=True):
            np.testing.assert_array_equal(plane, truth)


def test_a_pool_knows_where_targets_are() -> None:
    pool = Pool.of(SAMPLES, recipe="target")
    assert pool.size.tolist() == [[30, 20], [16, 17]]
    assert (pool.first.tolist(), pool.count.tolist()) == ([0, 2], [2, 2])
    assert sorted(pool.centres.tolist()) == sorted([[7, 5], [29, 19], [7, 5], [15, 16]])


def test_a_pool_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="no images"):
        Pool.of([], recipe="target")


def test_an_epoch_shows_each_image_as_often_as_its_set_weighs() -> None:
    order = Order([10, 4], [1.0, 2.5], seed=3)
    assert order.epoch_length == 20
    for epoch in range(3):
        seen = Counter(order.take(20 * epoch, 20).tolist())
        assert [seen[i] for i in range(10)] == [1] * 10
        assert sorted(seen[i] for i in range(10, 14)) == [2, 2, 3, 3]


def test_any_way_of_taking_gives_the_same_order() -> None:
    whole = Order([7], [1.0], seed=5).take(0, 40)
    parts = Order([7], [1.0], seed=5)
    assert torch.equal(torch.cat([parts.take(start, 8) for start in range(0, 40, 8)]), whole)
    assert torch.equal(Order([7], [1.0], seed=5).take(23, 11), whole[23:34])


def test_orders_differ_between_epochs_and_seeds() -> None:
    order = Order([50], [1.0], seed=0)
    assert not torch.equal(order.take(0, 50), order.take(50, 50))
    assert not torch.equal(order.take(0, 50), Order([50], [1.0], seed=1).take(0, 50))


def test_an_empty_epoch_is_refused() -> None:
    with pytest.raises(ValueError, match="empty epoch"):
        Order([3], [0.1], seed=0)


def test_seeds_depend_on_every_number_and_its_place() -> None:
    assert len({seed_of(0, 1, 2), seed_of(0, 2, 1), seed_of(1, 1, 2), seed_of(0, 1, 3)}) == 4
    assert seed_of(0, 1, 2) == seed_of(0, 1, 2)


STAGES = (Stage(sizes=(32,), batch=8, fraction=3), Stage(sizes=(64,), batch=2, fraction=1))


def test_stages_divide_the_steps_and_count_the_images() -> None:
    table = Timetable.of(Training(steps=20, stages=STAGES), epoch_length=32)
    # 15 steps of 8, then 5 of 2
    assert [table.at(step)[0].batch for step in (0, 14, 15, 19)] == [8, 8, 2, 2]
    assert [table.at(step)[1] for step in (0, 1, 14, 15, 16, 19)] == [0, 8, 112, 120, 122, 128]
    assert [table.epoch(step) for step in (0, 3, 4, 15, 19)] == [0, 0, 1, 3, 4]
    assert table.epochs == 5


def test_epochs_become_the_steps_that_show_as_many_images() -> None:
    # 3/4 of the steps show 8 images, 1/4 show 2: 6.5 a step; 13 epochs of 10 images are 130
    assert Timetable.of(Training(epochs=13, stages=STAGES), epoch_length=10).steps == 20


def test_the_official_run_has_1500_epochs() -> None:
    training = Training(epochs=1500, stages=(Stage(batch=16),))
    table = Timetable.of(training, epoch_length=213)
    assert (table.steps, table.epochs) == (19969, 1500)  # 1500 · 213 / 16 = 19968.75


def test_a_run_without_length_is_refused() -> None:
    with pytest.raises(ValueError, match=r"training\.steps or training\.epochs"):
        Timetable.of(config.Training(), epoch_length=5)
