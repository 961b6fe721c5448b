"""Pictures of the curves; matplotlib is imported only here, inside the function."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from ismallnet.metrics.curves import Curves


def save_curves(curves: Curves, folder: Path, *, title: str = "") -> list[Path]:
    """Write roc.png, pr.png and froc.png into an existing folder and return their paths.

    Raises:
        ImportError: matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError(
            "pictures of curves need matplotlib, which is not installed; run `pip install 'ismallnet[plot]'`"
        ) from error
    paths = []
    for name, xlabel, ylabel, step in (
        ("roc", "false positive rate (pixels)", "true positive rate (pixels)", "default"),
        ("pr", "recall (pixels)", "precision (pixels)", "steps-pre"),
        ("froc", "false components an image", "Pd", "steps-post"),
    ):
        curve = getattr(curves, name)
        figure = Figure(figsize=(5, 4), layout="constrained")
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
