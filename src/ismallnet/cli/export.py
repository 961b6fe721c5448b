"""``ismallnet export``."""

from __future__ import annotations

import argparse

import ismallnet
from ismallnet.cli.parser import DATA_SETS, Parser, add_decision, add_out
from ismallnet.cli.screen import OK, say, table, warn

SUMMARY = "write a network as a graph for other runtimes, checked against PyTorch"


def add(parser: Parser) -> None:
    """Add the options of the verb."""
    parser.add_argument(
        "model",
        metavar="MODEL",
        help="a network from `ismallnet list`, a run's folder, or a folder of weights",
    )
    parser.add_argument(
        "--format", default="onnx", choices=("onnx", "openvino", "torch"), help="default: %(default)s"
    )
    parser.add_argument(
        "--input",
        default="float32",
        choices=("uint8", "uint16", "float32"),
        help="type of the images that the graph takes (default: %(default)s)",
    )
    parser.add_argument(
        "--range",
        nargs=2,
        type=float,
        metavar=("LOW", "HIGH"),
        help="values of the input that become black and white (default: 0 and 255, 65535 or 1, by the type)",
    )
    parser.add_argument(
        "--precision", default="fp32", choices=("fp32", "fp16", "int8"), help="default: %(default)s"
    )
    parser.add_argument(
        "--data",
        nargs="+",
        default=(),
        metavar="NAME",
        help=f"{DATA_SETS}: train images to compare on, and to calibrate int8 on",
    )
    parser.add_argument("--root", default="data", metavar="DIR", help="where they are (default: %(default)s)")
    parser.add_argument("--split", default="train", help="which list of them (default: %(default)s)")
    add_decision(parser)
    add_out(parser, "exported", "the graph and export.json")


def run(options: argparse.Namespace) -> int:
    """Do the work and print what came of it; the exit status."""
    from ismallnet import data
    from ismallnet.checkpoint import check_out
    from ismallnet.evaluate import provenance
    from ismallnet.export import export
    from ismallnet.rules import Fixed

    check_out(options.out, force=options.force)
    detector = ismallnet.load(
        options.model,
        device="cpu",
        threshold=options.threshold,
        k=options.k,
        calibration=options.calibration,
    )
    if detector.folder is None or not isinstance(detector.rule, Fixed):
        raise ValueError(f"{options.model} is no network with weights; ismallnet list has those that are")
    artefact = export(
        detector.folder,
        options.out,
        format=options.format,
        input=options.input,
        range=options.range and tuple(options.range),
        precision=options.precision,
        threshold=detector.rule.value,
        datasets=[data.load(name, options.root, options.split) for name in options.data],
        provenance=provenance(),
        force=options.force,
    )
    rows = [
        (runtime, part, str(found["images"]), f"{found['largest']:.2g}", f"{found['p999']:.2g}", _iou(found))
        for runtime, parts in artefact.differences.items()
        if "refused" not in parts
        for part, found in parts.items()
    ]
    columns = ("runtime", "on", "images", "largest difference", "99.9 % within", "IoU, and by torch in fp32")
    table(columns, rows, title=f"{artefact.file}: scores against PyTorch in fp32")
    for runtime, parts in artefact.differences.items():
        if "refused" in parts:
            warn(f"{runtime} is not for it here: {parts['refused']}")
    say(f"{artefact.file} and export.json are in {options.out}")
    say(f"To use it: ismallnet detect IMAGES --model {options.out}")
    return OK


def _iou(found: dict[str, float]) -> str:
    return "" if found["iou"] is None else f"{found['iou']:.2f}, {found['iou_torch']:.2f}"
