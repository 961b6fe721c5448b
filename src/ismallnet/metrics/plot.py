"""Pictures of curves and threshold sweeps; matplotlib is imported only here, inside a function."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

    from ismallnet.metrics.curves import Curves


def save_curves(curves: Curves, folder: Path, *, title: str = "") -> list[Path]:
    """Write roc.png, pr.png and froc.png into an existing folder and return their paths.

    Raises:
        ImportError: matplotlib is not installed.
    """
    paths = []
    for name, xlabel, ylabel, step in (
        ("roc", "false positive rate (pixels)", "true positive rate (pixels)", "default"),
        ("pr", "recall (pixels)", "precision (pixels)", "steps-pre"),
        ("froc", "false components an image", "Pd", "steps-post"),
    ):
        curve = getattr(curves, name)
        figure = new_figure()
        axes = figure.subplots()
        axes.plot(curve.x, curve.y, drawstyle=step)
        axes.set(
            xlabel=xlabel, ylabel=ylabel, ylim=(-0.02, 1.02), title=f"{title}\narea {curve.area:.4f}".strip()
        )
        if name == "roc":  # background is nearly everything, so only small rates matter
            axes.set_xscale("symlog", linthresh=1e-6)
            axes.set_xlim(0, 1)
        axes.grid(alpha=0.3)
        path = folder / f"{name}.png"
        figure.savefig(path, dpi=120)
        paths.append(path)
    return paths


def save_sweep(
    path: Path,
    values: NDArray[np.float64],
    rates: Mapping[str, NDArray[np.float64]],
    *,
    name: str,
    chosen: float,
    title: str = "",
) -> None:
    """Write the picture of a threshold sweep: rates in [0, 1] on the left axis, Fa on the right one.

    Args:
        path: PNG to write.
        values: (V,) thresholds, ascending.
        rates: (V,) each; ``iou``, ``niou``, ``f1``, ``pd`` and ``fa`` are drawn.
        name: of the threshold.
        chosen: the threshold that is marked.
        title: above the picture.

    Raises:
        ImportError: matplotlib is not installed.
    """
    figure = new_figure()
    left = figure.subplots()
    for key, label in (("iou", "IoU"), ("niou", "nIoU"), ("f1", "F1"), ("pd", "Pd")):
        left.plot(values, rates[key], label=label)
    left.axvline(chosen, color="0.5", linestyle="--")
    left.set(xlabel=name, ylim=(-0.02, 1.02), title=title)
    if values[-1] > 1:  # not a probability
        left.set_xscale("log")
    left.grid(alpha=0.3)
    right = left.twinx()
    right.plot(values, rates["fa"] * 1e6, color="black", linestyle=":", label="Fa")
    right.set(ylabel="Fa (1e-6)", yscale="symlog")
    left.legend(handles=[*left.get_lines()[:-1], *right.get_lines()], fontsize="small")
    figure.savefig(path, dpi=120)


def new_figure(width: float = 5, height: float = 4) -> Any:
    """Return an empty figure of that size in inches.

    Raises:
        ImportError: matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError(
            "pictures need matplotlib, which is not installed; run `pip install 'ismallnet[plot]'`"
        ) from error
    return Figure(figsize=(width, height), layout="constrained")
