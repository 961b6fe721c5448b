"""Make the sample scenes of the demonstration again: python examples/scenes/make.py [FOLDER]."""

from __future__ import annotations

import sys
from pathlib import Path

from ismallnet.data.synthetic import scene, write_records, write_scene

# id: (seed, rows, columns, clutter, targets, signal-to-clutter ratio, bits, file type)
SCENES = {
    "cloud_edge": (3, 256, 320, "cloud", ("spot", "extended"), 7.0, 8, ".png"),
    "cloud_thin": (1, 240, 320, "cloud", ("point", "spot", "spot"), 10.0, 8, ".png"),
    "cloud_16bit": (5, 256, 256, "cloud", ("extended", "spot"), 10.0, 16, ".png"),
    "sea_glint": (0, 256, 320, "sea", ("spot", "extended"), 6.0, 8, ".png"),
    "sea_tiff": (4, 240, 256, "sea", ("spot", "spot"), 8.0, 16, ".tiff"),
    "terrain_village": (2, 256, 320, "terrain", ("spot", "spot"), 14.0, 8, ".png"),
    "terrain_16bit": (5, 240, 320, "terrain", ("extended", "spot", "spot"), 9.0, 16, ".png"),
}


def main(out: Path) -> None:
    records = []
    for id, (seed, height, width, clutter, targets, scr, bit_depth, suffix) in SCENES.items():
        made = scene(seed, height=height, width=width, clutter=clutter, targets=targets, scr=scr, noise=0.003)
        records.append(write_scene(out, id, made, bit_depth=bit_depth, suffix=suffix))
    write_records(out, records)


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent)
