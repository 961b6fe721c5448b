"""How far reflect padding moves the score: it enters global pooling, so a pixel far from the border feels it.

python examples/padding.py ismallnet-s runs/cbam --data NUAA-SIRST --root /data --out results/padding.csv

Each image is cut to a multiple of the network's own (no padding), scored, and scored again without its last
rows and columns (padded). The scores are compared at least `--margin` pixels away from the cut: what is left
of the difference came through global pooling or a wider view. Train lists only.
"""

from __future__ import annotations

import argparse
import csv
from pathlib import Path

import numpy as np

import ismallnet
from ismallnet import checkpoint, data
from ismallnet.catalogue import WEIGHTS
from ismallnet.detector import Detector
from ismallnet.evaluate import provenance

COLUMNS = [
    "model", "attention", "data", "images", "cut_px", "margin_px",
    "largest", "percentile_99_9", "mean", "flipped", "date", "commit", "hardware",
]  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("models", nargs="+", help="names with bundled weights, or folders of runs")
    parser.add_argument("--data", default="NUAA-SIRST")
    parser.add_argument("--root", default="data")
    parser.add_argument("--images", type=int, default=50)
    parser.add_argument("--margin", type=int, default=48)
    parser.add_argument("--out", type=Path, default=Path("results/padding.csv"))
    options = parser.parse_args()
    dataset = data.load(options.data, options.root, "train")
    dataset = dataset.subset(dataset.ids[: options.images])
    origin = {key: provenance()[key] for key in ("date", "commit", "hardware")}
    rows = []
    for name in options.models:
        for cut in (1, 8, 15):
            row = {
                "model": name,
                "attention": has_attention(name),
                "data": options.data,
                "images": len(dataset),
                "cut_px": cut,
                "margin_px": options.margin,
            }
            rows.append(row | measure(name, dataset, cut, options.margin) | origin)
            print(rows[-1])
    options.out.parent.mkdir(parents=True, exist_ok=True)
    with options.out.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        writer.writerows(rows)


def folder_of(name: str) -> Path:
    """Return the model folder of a name or a run."""
    return WEIGHTS / name if (WEIGHTS / name).is_dir() else Path(name) / "last"


def has_attention(name: str) -> bool:
    """Whether the network pools over the whole image."""
    model, _ = checkpoint.load_model(folder_of(name))
    return any(type(module).__name__ == "ChannelAttention" for module in model.modules())


def measure(name: str, dataset: data.Dataset, cut: int, margin: int) -> dict[str, object]:
    """Compare the scores of whole and cut images."""
    model, _ = checkpoint.load_model(folder_of(name))
    detector: Detector = ismallnet.Detector.from_model(model, name=name, device="cpu")
    multiple = int(model.multiple)
    differences, flipped = [], 0
    for sample in dataset:
        height, width = (side - side % multiple for side in sample.image.shape)
        if min(height, width) <= cut + margin + multiple:
            continue
        image = sample.image[:height, :width].astype(np.float32) / 255
        inner = (slice(height - cut - margin), slice(width - cut - margin))
        whole = detector.score(image)[inner]
        padded = detector.score(np.ascontiguousarray(image[: height - cut, : width - cut]))[inner]
        differences.append(np.abs(whole - padded).ravel())
        flipped += int(((whole > 0.5) != (padded > 0.5)).sum())
    everything = np.concatenate(differences)
    return {
        "largest": f"{everything.max():.3g}",
        "percentile_99_9": f"{np.quantile(everything, 0.999):.3g}",
        "mean": f"{everything.mean():.3g}",
        "flipped": flipped,
    }


if __name__ == "__main__":
    main()
