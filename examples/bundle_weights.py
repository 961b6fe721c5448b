"""Make weights to share of a finished run: half precision, checksums, and a model card of stored reports.

python examples/bundle_weights.py runs/joint ismallnet-s              # weights, to be evaluated
python examples/bundle_weights.py runs/joint ismallnet-s --reports results/ismallnet-s    # and the card,
                                                                      # and the results in the README
python examples/bundle_weights.py runs/acm acm --into weights         # beside the package, and with
                                   --table results/table1/table1.csv  # a card of the table's rows

The reports are `ismallnet evaluate ismallnet-s ... --out results/ismallnet-s/NUAA-standard` and so on, of
these very weights: another checksum is refused.
"""

from __future__ import annotations

import argparse
import csv
import json
from pathlib import Path
from typing import Any

from ismallnet import checkpoint
from ismallnet.catalogue import WEIGHTS
from ismallnet.models import describe

README = Path(__file__).parents[1] / "README.md"
SHARD_BYTES = 15_000_000
"""Larger weights are in several files, each, with its header, under 16 MB."""
BEGIN, END = "<!-- results -->", "<!-- end of results -->"
RATES = {
    "standard": ("iou", "niou", "f1", "pd", "fa"),
    "ismallnet": ("mean_iou", "mean_precision", "mean_recall", "f1_of_means"),
    "basicirstd": ("iou", "niou", "f1", "pd", "fa"),
    "dnanet": ("iou", "niou", "f1", "pd", "fa"),
}
TITLES = {
    "iou": "IoU (pooled)",
    "niou": "nIoU",
    "f1": "F1 (pooled)",
    "pd": "Pd",
    "fa": "Fa ×1e-6",
    "mean_iou": "mIoU (image mean)",
    "mean_precision": "precision",
    "mean_recall": "recall",
    "f1_of_means": "F1",
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", type=Path)
    parser.add_argument("name")
    parser.add_argument(
        "--reports", type=Path, help="folder of report folders; without it no card is written"
    )
    parser.add_argument(
        "--table", type=Path, help="table1.csv, in place of reports: its rows of these weights"
    )
    parser.add_argument(
        "--before", default="", help="what the weights went through before this run, for the card"
    )
    parser.add_argument(
        "--hardware",
        default="3 cores of an AMD EPYC (Zen 5, avx512_bf16) with `OMP_WAIT_POLICY=ACTIVE`",
        help="what the run was made on, for the card",
    )
    parser.add_argument("--into", type=Path, default=WEIGHTS, help="folder of model folders (the package's)")
    options = parser.parse_args()
    folder = options.into / options.name
    model, saved = checkpoint.load_model(options.run / "last")
    checkpoint.save_model(
        folder, model, name=saved.name, options=saved.options, metadata=saved.metadata, half=True,
        shard_bytes=SHARD_BYTES,
    )  # fmt: skip
    checksum = checkpoint.weights_sha256(folder)
    files = checkpoint.weight_files(folder)
    size = sum(path.stat().st_size for path in files)
    print(f"{folder}: {size / 1e6:.2f} MB in {len(files)} files, SHA-256 {checksum}")
    if options.reports or options.table:
        found = sorted(options.reports.glob("*/report.json")) if options.reports else []
        reports = [json.loads(path.read_text("utf-8")) for path in found]
        if options.table:
            reports += from_table(options.table, checksum)
        for report in reports:
            if report["provenance"]["weights_sha256"] != checksum:
                raise SystemExit(
                    f"{report['data']} {report['protocol']['name']} was measured on other weights"
                )
        result = json.loads((options.run / "result.json").read_text("utf-8"))
        history = f"{options.before} Then the" if options.before else "The"
        text = card(options.name, dict(saved.metadata), result, reports, checksum, history, options.hardware)
        (folder / "README.md").write_text(text, encoding="utf-8")
        if options.into != WEIGHTS:
            return
        readme = README.read_text(encoding="utf-8")
        before, _, rest = readme.partition(BEGIN)
        after = rest.partition(END)[2]
        README.write_text(f"{before}{BEGIN}\n\n{tables(reports)}{END}{after}", encoding="utf-8")


def from_table(path: Path, checksum: str) -> list[dict[str, Any]]:
    """Return the rows of some weights in a table1.csv, as far as a card needs them, as reports."""
    with path.open(encoding="utf-8", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["weights_sha256"] == checksum]
    if not rows:
        raise SystemExit(f"{path} has no row of the weights {checksum}")
    return [
        {
            "data": row["data"],
            "n": int(row["n"]),
            "protocol": {"name": row["protocol"]},
            "provenance": {"weights_sha256": checksum},
            "rates": {
                name: {
                    key: float(row[name + end] or "nan")
                    for key, end in (("value", ""), ("low", "_low"), ("high", "_high"))
                }
                for name in RATES[row["protocol"]]
            },
        }
        for row in rows
        if row["protocol"] in RATES
    ]


def card(
    name: str,
    metadata: dict[str, Any],
    result: dict[str, Any],
    reports: list[dict[str, Any]],
    checksum: str,
    history: str,
    hardware: str,
) -> str:
    """Return the model card."""
    recipe = metadata["recipe"]
    network = describe(recipe["model"]["name"], recipe["model"]["options"])
    maps = ", and the\ninterior and boundary maps" if network.startswith("ismallnet") else ""
    images = sum(entry["images"] for entry in metadata["data"])
    lists = "\n".join(
        f"| {entry['name']} | {entry['split']} | {entry['images']} | `{entry['split_sha256'][:16]}…` |"
        for entry in metadata["data"]
    )
    return f"""---
license: apache-2.0
pipeline_tag: image-segmentation
tags: [infrared, small-target-detection, SIRST]
---
# {name}

Weights for infrared small-target detection with the Python package `ismallnet`. Input: one grey image in
[0, 1], any size; normalisation is part of the model. Output: a probability a pixel{maps}.
The network is `{network}`.

SHA-256 of the weights: `{checksum}`
(of several files: of what `sha256sum *.safetensors` prints). Parameters in half precision, batch-norm
statistics in float32.

## Training

| data set | list | images | SHA-256 of the list |
|---|---|---|---|
{lists}

{history} recipe in `config.json` (`ismallnet train`): seed {recipe["training"]["seed"]},
{result["step"]} steps, {result["minutes"]:.0f} minutes on {hardware}; the averaged weights of the last
step, nothing selected. No test list was opened in training. One seed.

## Results on the test lists (50/50), one seed

{tables(reports)}
There are 48 pairs of near-duplicates across the NUDT-SIRST train and test lists (`ismallnet data check`);
numbers on it are flattered by that, as everybody's on these lists.

## Limits

- Trained on {images} images of 8 bits, bright targets of some 1 to 330 pixels in cloud, sea, field and city
  scenes. Dark targets, other bands, other optics and moving backgrounds were not tried.
- 16-bit and float images are mapped to [0, 1] by percentiles or `--range`; the score depends on that range.
- Outlines are as annotators drew them: the masks of NUDT-SIRST's targets of 10 to 36 pixels lie half a pixel
  up and left of their light, and so do the network's.
- A score of 0.5 is the threshold that it was trained for; it is not a calibrated probability.
"""


def tables(reports: list[dict[str, Any]]) -> str:
    """Return one table a protocol: a row a data set, each rate with its 95 % interval."""
    text = ""
    for protocol, names in RATES.items():
        rows = [report for report in reports if report["protocol"]["name"] == protocol]
        if not rows:
            continue
        text += f"Protocol `{protocol}`; in brackets the 95 % bootstrap interval over images.\n\n"
        text += "| data set | n | " + " | ".join(TITLES[name] for name in names) + " |\n"
        text += "|---" * (2 + len(names)) + "|\n"
        for report in rows:
            cells = [cell(name, report["rates"][name]) for name in names]
            text += f"| {report['data']} | {report['n']} | " + " | ".join(cells) + " |\n"
        text += "\n"
    return text


def cell(name: str, rate: dict[str, float]) -> str:
    """Return a rate with its interval: percent, or pixels a million for Fa."""
    scale = 1e6 if name == "fa" else 100
    value, low, high = (rate[key] * scale for key in ("value", "low", "high"))
    return f"{value:.2f} [{low:.1f}, {high:.1f}]"


if __name__ == "__main__":
    main()
