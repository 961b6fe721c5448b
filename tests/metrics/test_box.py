"""Box AP, against pycocotools."""

import contextlib
import io

import numpy as np
import pytest

from ismallnet.metrics.box import Ranking, count_boxes, overlap


def scene(seed: int, *, ties: bool) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Detections, scores and true boxes (y0, x0, y1, x1) of one image."""
    rng = np.random.default_rng(seed)
    truth = np.concatenate([corner := rng.integers(0, 50, (rng.integers(0, 5), 2)), corner], axis=1)
    truth[:, 2:] += rng.integers(2, 9, (len(truth), 2))
    found = np.concatenate([truth, truth[:2], truth[:0]]) + rng.integers(
        -1, 2, (len(truth) + len(truth[:2]), 4)
    )
    extra = np.concatenate([corner := rng.integers(0, 50, (rng.integers(0, 4), 2)), corner + 4], axis=1)
    found = np.concatenate([found, extra])
    found[:, 2:] = np.maximum(found[:, 2:], found[:, :2] + 1)
    score = rng.random(len(found))
    return found, np.round(score, 1) if ties else score, truth


def coco_ap(scenes: list[tuple[np.ndarray, np.ndarray, np.ndarray]]) -> tuple[float, float]:
    coco = pytest.importorskip("pycocotools.coco", reason="pycocotools is the reference here")
    from pycocotools.cocoeval import COCOeval

    def xywh(box: np.ndarray) -> list[float]:
        y0, x0, y1, x1 = (float(edge) for edge in box)
        return [x0, y0, x1 - x0, y1 - y0]

    truth = [
        {"id": 1000 * i + j + 1, "image_id": i + 1, "category_id": 1, "bbox": xywh(b), "iscrowd": 0}
        | {"area": float((b[2] - b[0]) * (b[3] - b[1]))}
        for i, (_, _, boxes) in enumerate(scenes)
        for j, b in enumerate(boxes)
    ]
    found = [
        {"image_id": i + 1, "category_id": 1, "bbox": xywh(b), "score": float(s)}
        for i, (boxes, scores, _) in enumerate(scenes)
        for b, s in zip(boxes, scores, strict=True)
    ]
    with contextlib.redirect_stdout(io.StringIO()):
        reference = coco.COCO()
        reference.dataset = {
            "info": {},
            "images": [{"id": i + 1} for i in range(len(scenes))],
            "categories": [{"id": 1}],
            "annotations": truth,
        }
        reference.createIndex()
        evaluation = COCOeval(reference, reference.loadRes(found), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return evaluation.stats[1], evaluation.stats[0]


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("seed", range(5))
def test_average_precision_agrees_with_pycocotools(seed, ties):
    scenes = [scene(100 * seed + index, ties=ties) for index in range(30)]
    ranking = Ranking([count_boxes(*each) for each in scenes])
    ours = ranking.average_precision(np.ones(len(scenes)))
    assert (ours[0], ours.mean()) == pytest.approx(coco_ap(scenes), abs=1e-9)


def test_only_the_hundred_best_detections_of_an_image_count_as_in_pycocotools():
    rng = np.random.default_rng(3)
    corner = rng.integers(0, 500, (150, 2))
    boxes = np.concatenate([corner, corner + 6], axis=1)
    scenes = [(boxes, np.linspace(1, 0.1, 150), boxes[::3])]
    ours = Ranking([count_boxes(*each) for each in scenes]).average_precision(np.ones(1))
    assert (ours[0], ours.mean()) == pytest.approx(coco_ap(scenes), abs=1e-9)


def test_without_a_true_box_the_value_is_minus_one_as_in_pycocotools():
    box, none = np.array([[0, 0, 2, 2]]), np.zeros((0, 4), int)
    assert (Ranking([count_boxes(box, np.ones(1), none)]).average_precision(np.ones(1)) == -1).all()
    assert coco_ap([(box, np.ones(1), none)]) == (-1, -1)


def test_without_a_detection_the_value_is_zero():
    box, none = np.array([[0, 0, 2, 2]]), np.zeros((0, 4), int)
    assert (Ranking([count_boxes(none, np.ones(0), box)]).average_precision(np.ones(1)) == 0).all()


def test_counting_an_image_twice_is_the_weight_two():
    scenes = [scene(seed, ties=False) for seed in range(12)]
    counts = [count_boxes(*each) for each in scenes]
    weight = np.array([2.0, 0, 1] * 4)
    repeated = [count for count, times in zip(counts, weight, strict=True) for _ in range(int(times))]
    np.testing.assert_allclose(
        Ranking(counts).average_precision(weight),
        Ranking(repeated).average_precision(np.ones(len(repeated))),
        atol=1e-12,
    )


def test_overlap_of_half_open_boxes_by_hand():
    a, b = np.array([[0, 0, 2, 2]]), np.array([[0, 1, 2, 3], [2, 2, 3, 3], [0, 0, 2, 2]])
    assert overlap(a, b).tolist() == [[pytest.approx(2 / 6), 0, 1]]
