"""A result that cannot lose its protocol: counts of every image, what they mean, and where they are from."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

from ismallnet.metrics.rates import Rate, Rates, derive
from ismallnet.metrics.strata import STRATA

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from ismallnet.metrics.counts import ImageCount
    from ismallnet.metrics.curves import Curves
    from ismallnet.metrics.protocols import Protocol

DOUBTFUL = frozenset({("NUAA-SIRST", "Misc_111")})
"""Images whose published mask does not fit: they count, and the result without them is one extra line."""

_PERCENT, _PPM, _PLAIN = (100.0, "%", 2), (1e6, "x 1e-6", 2), (1.0, "", 3)
_UNITS = {"fa": _PPM, "false_components": _PLAIN, "scr_gain": _PLAIN, "suppression": _PLAIN}
_TITLES = {
    "iou": "IoU (pooled)",
    "niou": "nIoU",
    "mean_iou": "IoU (mean over images)",
    "precision": "precision (pooled)",
    "recall": "recall (pooled)",
    "f1": "F1 (pooled)",
    "mean_precision": "precision (mean over images)",
    "mean_recall": "recall (mean over images)",
    "f1_of_means": "F1 (of the two means)",
    "pd": "Pd",
    "fa": "Fa",
    "false_components": "false components an image",
    "ap50": "box AP@0.5",
    "ap": "box AP@[.5:.95]",
    "scr_gain": "SCR gain (median image)",
    "suppression": "background suppression (median image)",
    "flat_rings": "targets in a flat response",
}
_HEADLINE = {
    "pooled": ("iou", "niou", "precision", "recall", "f1"),
    "image": ("mean_iou", "iou", "mean_precision", "mean_recall", "f1_of_means"),
}


@dataclass(frozen=True, kw_only=True, eq=False)
class Report:
    """The evaluation of one detector on one list of images; reports of one protocol can be added."""

    detector: str
    rule: str
    """Decision rule in words."""
    protocol: Protocol
    data: str
    split: str
    split_sha256: str
    counts: tuple[ImageCount, ...]
    bootstrap: int = 0
    """Replicates of the interval over images; 0: no interval."""
    seed: int = 0
    """Of the bootstrap."""
    curves: Curves | None = None
    notes: tuple[str, ...] = ()
    """Departures from the protocol and other things a reader must know."""
    provenance: Mapping[str, object] = field(default_factory=dict)
    """Date, commit, hardware, versions, weights, seconds."""

    @cached_property
    def rates(self) -> Rates:
        """All rates with their intervals, derived once.

        Raises:
            ValueError: no image.
        """
        return derive(self.counts, self.protocol, bootstrap=self.bootstrap, seed=self.seed)

    @property
    def headline(self) -> dict[str, Rate]:
        """The protocol's own numbers first: iou, niou, precision, recall, f1, pd, fa.

        ``iou``, ``precision``, ``recall`` and ``f1`` are image means under a protocol that averages so.
        """
        overall = self.rates.overall
        names = _HEADLINE[self.protocol.average]
        first = dict(zip(("iou", "precision", "recall", "f1"), (names[0], *names[2:]), strict=True))
        return {short: overall[first.get(short, short)] for short in _LOGGED}

    @property
    def on_test_list(self) -> bool:
        """Whether the list is, or may hold, a test list by its name; such an evaluation has to be logged."""
        names = [part.rsplit("/", 1)[-1] for part in self.split.split(_BETWEEN)]
        return any("test" in name or name == "all" for name in names)

    def without(self, images: Iterable[tuple[str, str]]) -> Report:
        """The same result without some images, given as (data set, id); the curves are left out."""
        left = set(images)
        kept = tuple(count for count in self.counts if (count.data, count.id) not in left)
        return replace(self, counts=kept, curves=None)

    @property
    def doubtful(self) -> Report | None:
        """The result without the images of `DOUBTFUL`; None where there is none of them, or nothing else."""
        reduced = self.without(DOUBTFUL)
        return reduced if 0 < len(reduced.counts) < len(self.counts) else None

    def __add__(self, other: Report) -> Report:
        """Pool the images of two reports; the curves are left out, since they need the score maps.

        Raises:
            ValueError: the protocols differ, or an image is in both.
        """
        if self.protocol != other.protocol:
            raise ValueError(
                f"protocols {self.protocol.name!r} and {other.protocol.name!r} do not add; "
                "evaluate both under one protocol"
            )
        both = {(c.data, c.id) for c in self.counts} & {(c.data, c.id) for c in other.counts}
        if both:
            raise ValueError(f"{len(both)} images are in both reports, e.g. {min(both)}; add disjoint lists")
        return replace(
            self,
            detector=_join(self.detector, other.detector),
            rule=_join(self.rule, other.rule),
            data=_join(self.data, other.data),
            split=_join(self.split, other.split),
            split_sha256=_join(self.split_sha256, other.split_sha256),
            counts=self.counts + other.counts,
            curves=None,
            notes=tuple(dict.fromkeys(self.notes + other.notes)),
            provenance={"parts": [*_parts(self), *_parts(other)]},
        )

    def all_notes(self) -> tuple[str, ...]:
        """The notes, and one for every rate that is not defined, with the reason."""
        overall = self.rates.overall
        undefined = [
            f"{_TITLES[name]}: {why}" for name, why in _EMPTY.items() if math.isnan(overall[name].value)
        ]
        return (*self.notes, *undefined)

    def rows(self) -> list[tuple[str, str, str]]:
        """(quantity, value, 95 % interval) as text, the protocol's own quantities first."""
        overall = self.rates.overall
        first = (
            *_HEADLINE[self.protocol.average],
            *("pd", "fa", "false_components", "ap50", "ap", "scr_gain", "suppression", "flat_rings"),
        )
        rows = [(_TITLES[name], *format_rate(name, overall[name])) for name in first if name in overall]
        if self.curves is not None:
            curves = {
                "ROC area": self.curves.roc,
                "PR area (AP)": self.curves.pr,
                "FROC area": self.curves.froc,
            }
            rows += [(f"{title}", f"{curve.area:.4f}", "") for title, curve in curves.items()]
        reduced = self.doubtful
        if reduced is not None:
            rate = reduced.headline["iou"]
            ids = ", ".join(sorted(id for _, id in DOUBTFUL))
            rows.append((f"IoU without {ids}", *format_rate("iou", rate)))
        return rows

    def strata_rows(self) -> list[tuple[str, str, str, str, str]]:
        """(property, bin, targets, Pd, pixel recall) as text; empty where no details were counted."""
        titles = {stratum.name: stratum.title for stratum in STRATA}
        return [
            (
                titles[rate.property],
                rate.label,
                str(rate.targets),
                " ".join(format_rate("pd", rate.pd)).strip(),
                " ".join(format_rate("recall", rate.recall)).strip(),
            )
            for rate in self.rates.strata
        ]

    def to_dict(self) -> dict[str, Any]:
        """Everything but the vertices of the curves, ready for JSON: fractions, None for undefined."""
        reduced = self.doubtful
        return {
            "detector": self.detector,
            "rule": self.rule,
            "protocol": self.protocol.parameters(),
            "data": self.data,
            "split": self.split,
            "split_sha256": self.split_sha256,
            "n": len(self.counts),
            "bootstrap": self.bootstrap,
            "seed": self.seed,
            "headline": {name: _rate(rate) for name, rate in self.headline.items()},
            "rates": {name: _rate(rate) for name, rate in self.rates.overall.items()},
            "strata": [
                {
                    "property": rate.property,
                    "bin": rate.label,
                    "targets": rate.targets,
                    "pd": _rate(rate.pd),
                    "recall": _rate(rate.recall),
                }
                for rate in self.rates.strata
            ],
            "curve_areas": self.curves
            and {name: _number(getattr(self.curves, name).area) for name in ("roc", "pr", "froc")},
            "without_doubtful": reduced
            and {
                "ids": sorted(f"{data}/{id}" for data, id in DOUBTFUL),
                "n": len(reduced.counts),
                "rates": {name: _rate(rate) for name, rate in reduced.headline.items()},
            },
            "notes": list(self.all_notes()),
            "provenance": dict(self.provenance),
            "counts": [{name: getattr(count, name) for name in PER_IMAGE} for count in self.counts],
        }

    def to_json(self) -> str:
        """`to_dict` as strict JSON text."""
        return json.dumps(self.to_dict(), indent=1, allow_nan=False) + "\n"

    def to_markdown(self) -> str:
        """Tables with the protocol, its parameters and the provenance beside the numbers."""
        lines = [
            f"# {self.detector} on {self.data} {self.split}, protocol `{self.protocol.name}`",
            "",
            f"{len(self.counts)} images; decision {self.rule}; "
            + (f"95 % intervals: bootstrap over images, {self.bootstrap} replicates, seed {self.seed}."
               if self.bootstrap else "no intervals."),
            "",
            *_table(("quantity", "value", "95 % interval"), self.rows()),
        ]  # fmt: skip
        if self.rates.strata:
            header = ("property of the target", "bin", "targets", "Pd", "pixel recall")
            lines += ["", *_table(header, self.strata_rows())]
        if self.all_notes():
            lines += ["", *(f"- {note}" for note in self.all_notes())]
        parameters = ", ".join(f"{name} {value}" for name, value in self.protocol.parameters().items())
        lines += ["", f"Protocol: {parameters}.", "", f"Split list SHA-256: {self.split_sha256}.", ""]
        lines += [f"- {name}: {value}" for name, value in self.provenance.items()]
        return "\n".join(lines) + "\n"


PER_IMAGE = ("data", "id", "pixels", "tp", "fp", "fn", "targets", "matched", "predicted", "false_components",
             "false_pixels")  # fmt: skip
"""Columns of the counts of an image, in JSON and CSV."""
_BETWEEN = " + "  # of the names in a sum; `unet++` is a name
_LOGGED = ("iou", "niou", "precision", "recall", "f1", "pd", "fa")
_EMPTY = {
    "iou": "not defined, no positive pixel in prediction or truth",
    "precision": "not defined, nothing was predicted",
    "recall": "not defined, no true pixel",
    "f1": "not defined, no true positive pixel",
    "pd": "not defined, no target",
}


def format_rate(name: str, rate: Rate) -> tuple[str, str]:
    """A rate and its interval as text in its usual unit: per cent, 1e-6 for Fa, plain for counts."""
    scale, unit, digits = _UNITS.get(name, _PERCENT)
    if name in ("ap", "ap50") and rate.value < 0:
        return "-1 (no true box)", ""
    value = f"{rate.value * scale:.{digits}f} {unit}".strip()
    if math.isnan(rate.low):
        return value, ""
    return value, f"[{rate.low * scale:.{digits}f}, {rate.high * scale:.{digits}f}]"


def _join(a: str, b: str) -> str:
    return _BETWEEN.join(dict.fromkeys((*a.split(_BETWEEN), *b.split(_BETWEEN))))


def _parts(report: Report) -> list[object]:
    parts = report.provenance.get("parts")
    return list(parts) if isinstance(parts, list) else [dict(report.provenance)]


def _number(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _rate(rate: Rate) -> dict[str, float | None]:
    return {"value": _number(rate.value), "low": _number(rate.low), "high": _number(rate.high)}


def _table(header: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> list[str]:
    lines = [header, tuple("---" for _ in header), *rows]
    return ["| " + " | ".join(cell.replace("|", "/") for cell in line) + " |" for line in lines]
