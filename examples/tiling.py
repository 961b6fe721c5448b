"""What tiling changes: images that fit whole, scored whole and in tiles, both against the truth.

python examples/tiling.py ismallnet-s top-hat --root /data --sides 128 192 256 384 --out results/tiling.csv
python examples/tiling.py ismallnet-s --data NUDT-SIRST --root /data --mosaic 4 --images 256 --sides 256 512

Of a data set, the images with an axis longer than the tile are taken, for they alone are cut. No image of the
public sets is longer than a tile of the default: ``--mosaic 4`` sets sixteen images of the list together.
A row is a detector and a tiling: pooled IoU whole and tiled, and how many pixels of the masks changed. Train
lists only: the IoU is not one to quote (a network may have been trained on them), its change is what counts.
"""

from __future__ import annotations

import argparse
import csv
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path

import numpy as np

import ismallnet
from ismallnet import data
from ismallnet.evaluate import provenance
from ismallnet.metrics.pixel import iou
from ismallnet.tiles import Tiling
from ismallnet.types import Sample

COLUMNS = [
    "model", "data", "split", "mosaic", "side_px", "overlap_px", "images", "whole_iou", "tiled_iou",
    "change_points", "changed_per_million", "largest_score_change", "date", "commit", "hardware",
]  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("models", nargs="+", help="names with bundled weights, filters, or folders of runs")
    parser.add_argument("--data", default="NUAA-SIRST")
    parser.add_argument("--root", default="data")
    parser.add_argument("--sides", nargs="+", type=int, default=[128, 192, 256, 384, 512])
    parser.add_argument("--share", type=float, default=0.25, help="of a tile's side that overlaps (0.25)")
    parser.add_argument("--images", type=int, help="the first so many of the list (default: all)")
    parser.add_argument("--mosaic", type=int, default=1, metavar="N", help="set N x N images together")
    parser.add_argument("--out", type=Path, default=Path("results/tiling.csv"))
    options = parser.parse_args()
    dataset = data.load(options.data, options.root, "train")
    dataset = dataset.subset(dataset.ids[: options.images])
    tilings = [Tiling(side, int(options.share * side), above=0) for side in options.sides]
    scenes = list(mosaics(dataset, options.mosaic))
    origin = {key: provenance()[key] for key in ("date", "commit", "hardware")}
    rows = []
    for name in options.models:
        detector = ismallnet.load(name)
        for row in measure(detector, scenes, tilings):
            about = {"model": name, "data": options.data, "split": "train", "mosaic": options.mosaic}
            rows.append(about | row | origin)
            print(rows[-1], flush=True)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    with options.out.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        writer.writerows(rows)


def mosaics(samples: Iterable[Sample], side: int) -> Iterator[Sample]:
    """Set consecutive samples together, side x side, cut to the smallest; an incomplete rest is left."""
    pending = iter(samples)
    while len(group := list(islice(pending, side * side))) == side * side:
        height, width = np.min([sample.image.shape for sample in group], axis=0)
        image, mask = (
            np.block([[kind[side * y + x][:height, :width] for x in range(side)] for y in range(side)])
            for kind in ([sample.image for sample in group], [sample.mask for sample in group])
        )
        yield Sample(group[0].id, image, mask)


def measure(
    detector: ismallnet.Detector, samples: list[Sample], tilings: list[Tiling]
) -> list[dict[str, object]]:
    """A row a tiling, over the images that it cuts."""
    counts = np.zeros((len(tilings), 2, 3), np.int64)  # whole and tiled: tp, fp, fn
    images, changed, pixels = (np.zeros(len(tilings), np.int64) for _ in range(3))
    largest = np.zeros(len(tilings))
    for sample in samples:
        image = sample.image.astype(np.float32) / 255
        cutting = [n for n, tiling in enumerate(tilings) if max(image.shape) > tiling.side]
        detector.tiling = None
        whole = detector(image) if cutting else None
        for n in cutting:
            assert whole is not None
            detector.tiling = tilings[n]
            tiled = detector(image)
            counts[n] += [compare(found.mask, sample.mask) for found in (whole, tiled)]
            images[n] += 1
            pixels[n] += image.size
            changed[n] += np.count_nonzero(whole.mask != tiled.mask)
            largest[n] = max(largest[n], np.abs(whole.score - tiled.score).max())
    rows = []
    for n, tiling in enumerate(tilings):
        whole_iou, tiled_iou = 100 * iou(*counts[n].T)
        rows.append(
            {
                "side_px": tiling.side,
                "overlap_px": tiling.overlap,
                "images": int(images[n]),
                "whole_iou": f"{whole_iou:.3f}",
                "tiled_iou": f"{tiled_iou:.3f}",
                "change_points": f"{tiled_iou - whole_iou:+.3f}",
                "changed_per_million": f"{1e6 * changed[n] / max(pixels[n], 1):.1f}",
                "largest_score_change": f"{largest[n]:.4f}",
            }
        )
    return rows


def compare(mask: np.ndarray, truth: np.ndarray) -> tuple[int, int, int]:
    return int((mask & truth).sum()), int((mask & ~truth).sum()), int((~mask & truth).sum())


if __name__ == "__main__":
    main()
