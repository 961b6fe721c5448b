"""Put the calibrations of the filters into the package, from the folders that `ismallnet calibrate` wrote.

python examples/bundle_calibrations.py results/calibration
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from ismallnet.filters import CALIBRATION, FILTERS


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path, help="with a folder a filter, named after it")
    folder = parser.parse_args().folder
    found = {name: json.loads((folder / name / "calibration.json").read_text("utf-8")) for name in FILTERS}
    foreign = [name for name, content in found.items() if content["detector"] != name]
    if foreign:
        raise SystemExit(f"{folder / foreign[0]} is of another detector")
    text = json.dumps(found, indent=1, ensure_ascii=False)
    CALIBRATION.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
