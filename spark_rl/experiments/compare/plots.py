# pyright: reportUnknownMemberType=false
# (The keyword arguments of matplotlib have no types.)
"""Plots of a comparison. matplotlib is an extra, imported only where a plot is drawn."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from spark_rl.common.files import write_bytes
from spark_rl.errors import MissingExtra
from spark_rl.experiments.compare.curves import Interval, mean_curve, paired, t_quantile
from spark_rl.experiments.compare.tables import AXES, Comparison

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["draw", "require"]


def require() -> type[Figure]:
    """The Figure of matplotlib, which draws to files without a display and without global state.

    Raises:
        MissingExtra: matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingExtra("a plot", "plots") from error
    return Figure


def draw(comparison: Comparison, out: Path) -> list[Path]:
    """Write `curves.png` (success over each axis) and, with several arms, `differences.png`; returns their paths.

    Raises:
        MissingExtra: matplotlib is not installed.
    """
    figures = {"curves.png": _curves(comparison)}
    if len(comparison.arms) > 1:
        figures["differences.png"] = _differences(comparison)
    paths = [out / name for name in figures]
    for path, figure in zip(paths, figures.values(), strict=True):
        _write(figure, path)
    return paths


def _curves(comparison: Comparison) -> Figure:
    """Mean success over seeds with its 95 % band, one panel for each axis."""
    figure = require()(figsize=(4.5 * len(AXES), 4), layout="constrained")
    panels = figure.subplots(1, len(AXES), sharey=True)
    for panel, (axis, name) in zip(panels, AXES.items(), strict=True):
        for number, (arm, curves) in enumerate(zip(comparison.arms, comparison.curves(axis), strict=True)):
            x, y = mean_curve(curves)
            mean = y.mean(axis=0)
            panel.plot(x, mean, label=arm, color=f"C{number}", linestyle="--" if number == 0 else "-")
            if len(y) > 1:
                half = t_quantile(len(y) - 1) * y.std(axis=0, ddof=1) / np.sqrt(len(y))
                panel.fill_between(x, mean - half, mean + half, color=f"C{number}", alpha=0.12, linewidth=0)
        panel.set_xlabel(name)
        panel.ticklabel_format(axis="x", style="sci", scilimits=(0, 4))
        panel.grid(alpha=0.3)
    panels[0].set_ylabel(f"success, held out ({len(comparison.seeds)} seeds, 95 %)")
    panels[0].legend(fontsize="small", loc="best")
    return figure


def _differences(comparison: Comparison) -> Figure:
    """Paired differences to the first arm with their intervals, one panel for each axis."""
    figure = require()(figsize=(4 * len(AXES), 1 + 0.4 * len(comparison.arms)), layout="constrained")
    panels = figure.subplots(1, len(AXES), sharey=True)
    for panel, (axis, name) in zip(panels, AXES.items(), strict=True):
        base, *others = comparison.at_equal(axis)
        _forest(panel, [paired(values, base) for values in others])
        panel.set_xlabel(f"success minus {comparison.arms[0]},\nat equal {name}")
    panels[0].set_yticks(range(len(comparison.arms) - 1), comparison.arms[1:])
    panels[0].set_ylim(len(comparison.arms) - 1.5, -0.5)
    return figure


def _forest(panel: Axes, differences: Sequence[Interval]) -> None:
    panel.axvline(0, color="grey", linewidth=0.8)
    for row, difference in enumerate(differences):
        panel.plot([difference.low, difference.high], [row, row], color="C0")
        panel.plot(difference.mean, row, "o", color="C0")
    panel.grid(axis="x", alpha=0.3)


def _write(figure: Figure, path: Path) -> None:
    import io

    picture = io.BytesIO()
    figure.savefig(picture, format="png", dpi=120)
    write_bytes(path, picture.getvalue())
