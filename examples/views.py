"""What views and confirmation are worth, on a fold of the train lists that a network was trained without.

python examples/views.py results/fold0/ismallnet-s --root /data --fold 0 --out results/views.csv

Refused where the network was trained without another fold, or with all. A row that is there stays.
"""

from __future__ import annotations

import argparse
from itertools import product
from pathlib import Path

import ismallnet
from ismallnet import data
from ismallnet.benchmark.store import Store
from ismallnet.catalogue import find_weights
from ismallnet.checkpoint import read_saved
from ismallnet.evaluate import evaluate

KEYS = ["model", "weights_sha256", "data", "fold", "n", "protocol", "views", "confirm"]
RATES = ["iou", "niou", "mean_iou", "pd", "fa"]
ORIGIN = ["date", "commit", "hardware"]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", help="a name with weights, or a run's folder")
    parser.add_argument("--root", default="data")
    parser.add_argument("--data", nargs="+", default=["NUAA-SIRST", "NUDT-SIRST"])
    parser.add_argument("--fold", type=int, default=0)
    parser.add_argument("--views", type=int, nargs="+", default=[1, 2, 4, 8])
    parser.add_argument("--protocols", nargs="+", default=["standard", "ismallnet"])
    parser.add_argument("--out", type=Path, default=Path("results/views.csv"))
    options = parser.parse_args()
    trained = read_saved(find_weights(options.model)).metadata["recipe"]["data"]["fold"]
    if trained != options.fold:
        raise SystemExit(f"{options.model} was trained with data.fold {trained}, not {options.fold}")
    detector = ismallnet.load(options.model)
    store = Store(options.out, KEYS + RATES + ORIGIN)
    trials = product(options.data, options.protocols, options.views, (False, True))
    for name, protocol, views, confirm in trials:
        judge = data.validation_split(data.load(name, options.root, "train"), options.fold)[1]
        network = options.model, detector.weights_sha256
        known = *network, name, options.fold, len(judge), protocol, views, confirm
        key = dict(zip(KEYS, map(str, known), strict=True))
        if any(key.items() <= row.items() for row in store.rows):
            continue
        detector.views, detector.confirm = views, confirm
        report = evaluate(detector, judge, protocol=protocol, bootstrap=0, details=False)
        rates = {rate: f"{report.rates.overall[rate].value:.6g}" for rate in RATES}
        store.replace(key, [key | rates | {k: str(report.provenance[k]) for k in ORIGIN}])
        print(name, protocol, views, confirm, rates, flush=True)


if __name__ == "__main__":
    main()
