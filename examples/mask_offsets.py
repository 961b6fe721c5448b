"""How far the masks of a data set lie from the light of their targets, by size; train lists only.

python examples/mask_offsets.py --root /data --out results/mask_offsets.csv

A row is a data set and a size class: median and quartiles of (centre of the mask - centre of the light), in
pixels. See `ismallnet.data.offsets`; `ismallnet data check` says it of any data set.
"""

from __future__ import annotations

import argparse
import csv
from pathlib import Path

import numpy as np

from ismallnet import data
from ismallnet.data.offsets import SIZES, offsets
from ismallnet.evaluate import provenance


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", nargs="+", default=["NUAA-SIRST", "NUDT-SIRST"])
    parser.add_argument("--root", default="data")
    parser.add_argument("--out", type=Path, default=Path("results/mask_offsets.csv"))
    options = parser.parse_args()
    origin = {key: provenance()[key] for key in ("date", "commit")}
    rows = []
    for name in options.data:
        dataset = data.load(name, options.root, "train")
        found = [o for sample in dataset for o in offsets(sample.image, sample.mask)]
        for low, high in SIZES:
            chosen = np.array([(o.dx, o.dy) for o in found if low <= o.area and (not high or o.area <= high)])
            if len(chosen) == 0:
                continue
            row = {"data": name, "split": "train", "split_sha256": dataset.split_sha256}
            row |= {"from_px": low, "to_px": high or "", "targets": len(chosen)}
            for axis, values in zip(("dx", "dy"), chosen.T, strict=True):
                quartiles = np.percentile(values, (25, 50, 75))
                row |= {f"{axis}_{q}": f"{v:.2f}" for q, v in zip((25, 50, 75), quartiles, strict=True)}
            rows.append(row | origin)
            print(rows[-1])
    options.out.parent.mkdir(parents=True, exist_ok=True)
    with options.out.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


if __name__ == "__main__":
    main()
