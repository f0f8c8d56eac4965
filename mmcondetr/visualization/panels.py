"""Rows of attention maps as one figure; next to each block of rows, the image with its box and reference point."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.gridspec import GridSpec
from matplotlib.patches import Rectangle
from torch import Tensor

from mmcondetr.errors import UserError
from mmcondetr.visualization.attend import AttendedImage, Detection, to_rgb
from mmcondetr.writing import replacing

COLOUR_MAP = 'viridis'  # perceptually uniform: also readable in grey and with any colour vision
BOX_COLOUR = '#ff3b6b'
OPACITY = (0.38, 0.9)  # of the overlay, at weight zero and at the largest weight
PANEL = 1.55  # inches
PANEL_PIXELS = 360  # longer side of a map
GUTTER = 0.42  # panels; space for the row titles between the image and its maps


class Row(NamedTuple):
    """One row of panels: maps (H, h, w) of one detection over its image."""

    title: str
    attended: AttendedImage
    detection: Detection
    maps: Tensor
    reference: tuple[float, float] | None


def draw_rows(rows: Sequence[Row], titles: Sequence[str], title: str, out_png: str | os.PathLike) -> None:
    """Draw rows of panels; to the left of each detection's block of rows, draw the detection on the image."""
    height, width = rows[0].attended.pixels.shape[:2]
    aspect = min(max(height / width, 0.4), 2.5)
    panel = (PANEL, PANEL * aspect)
    blocks = _blocks(rows)
    left = 2 if len(blocks[0]) > 1 else 1  # next to several rows the image spans two columns
    figure = Figure(figsize=(panel[0] * (len(titles) + left + GUTTER) + 0.95, panel[1] * len(rows) + 0.8))
    width, height = figure.get_size_inches()
    # Margins in inches: a layout engine would make the panels unequal.
    ratios = [1] * left + [GUTTER] + [1] * len(titles)
    grid = GridSpec(
        len(rows),
        len(ratios),
        figure,
        left=0.1 / width,
        right=1 - 0.85 / width,
        bottom=0.12 / height,
        top=1 - 0.62 / height,
        wspace=0.05,
        hspace=0.05 / aspect,
        width_ratios=ratios,
    )
    start = 0
    for block in blocks:
        _draw_detection(figure.add_subplot(grid[start : start + len(block), :left]), block[0], left > 1)
        for index, row in enumerate(block):
            for column, weights in enumerate(row.attended.attention.resize(row.maps, _panel_size(row)).cpu().numpy()):
                axes = figure.add_subplot(grid[start + index, left + 1 + column])
                _draw_map(axes, row, weights)
                if start + index == 0:
                    axes.set_title(titles[column], fontsize=9, parse_math=False)
                if column == 0:
                    axes.set_ylabel(row.title, fontsize=9, parse_math=False)
        start += len(block)
    figure.suptitle(title, parse_math=False, fontsize=11, y=1 - 0.1 / figure.get_figheight(), va='top')
    _draw_scale(figure)
    save_figure(figure, out_png)


def _blocks(rows: Sequence[Row]) -> list[list[Row]]:
    """Group consecutive rows of the same detection and model."""
    blocks: list[list[Row]] = []
    for row in rows:
        if blocks and blocks[-1][0].detection == row.detection and blocks[-1][0].attended is row.attended:
            blocks[-1].append(row)
        else:
            blocks.append([row])
    return blocks


def _draw_detection(axes: Axes, row: Row, tall: bool) -> None:
    pixels = row.attended.pixels
    axes.imshow(to_rgb(pixels), interpolation='nearest' if max(pixels.shape) < 400 else 'antialiased')
    _mark(axes, row)
    _caption(axes, f'{row.detection.name} {row.detection.score:.2f}, query {row.detection.query}', 0.03, 'left')
    axes.set_anchor('N' if tall else 'C')
    _hide_ticks(axes)


def _panel_size(row: Row) -> tuple[int, int]:
    """(height, width) in pixels of a panel's content, limited to the visible resolution."""
    height, width = row.attended.pixels.shape[:2]
    scale = min(1.0, PANEL_PIXELS / max(height, width))
    return max(1, round(height * scale)), max(1, round(width * scale))


def _draw_map(axes: Axes, row: Row, weights: np.ndarray) -> None:
    """Draw the map over the grey image, scaled from zero to its own maximum, which is printed in the corner."""
    grey = (
        cv2.resize(
            cv2.cvtColor(row.attended.pixels, cv2.COLOR_BGR2GRAY), weights.shape[::-1], interpolation=cv2.INTER_AREA
        )[..., None]
        / 255
    )
    top = max(float(weights.max()), 1e-12)
    colours = colormaps[COLOUR_MAP](weights / top)[..., :3]
    opacity = OPACITY[0] + (OPACITY[1] - OPACITY[0]) * (weights / top)[..., None]
    height, width = row.attended.pixels.shape[:2]
    axes.imshow(opacity * colours + (1 - opacity) * grey, extent=(-0.5, width - 0.5, height - 0.5, -0.5))
    _mark(axes, row)
    _caption(axes, f'max {top:.2g}', 0.97, 'right')
    _hide_ticks(axes)


def _caption(axes: Axes, text: str, x: float, side: str) -> None:
    axes.text(
        x,
        0.03,
        text,
        parse_math=False,  # class names may have dollar signs
        transform=axes.transAxes,
        ha=side,
        va='bottom',
        fontsize=6.5,
        color='white',
        zorder=5,
        bbox=dict(facecolor='black', alpha=0.5, pad=1.2, linewidth=0),
    )


def _mark(axes: Axes, row: Row) -> None:
    """Draw the box, and the reference point as a cross."""
    x1, y1, x2, y2 = row.detection.box
    for colour, line in (('black', 2.6), (BOX_COLOUR, 1.4)):
        axes.add_patch(Rectangle((x1 - 0.5, y1 - 0.5), x2 - x1, y2 - y1, fill=False, edgecolor=colour, linewidth=line))
    if row.reference is not None:
        x, y = row.reference
        axes.plot([x - 0.5], [y - 0.5], 'X', color='white', markeredgecolor='black', markersize=6.5)
    height, width = row.attended.pixels.shape[:2]
    axes.set_xlim(-0.5, width - 0.5)
    axes.set_ylim(height - 0.5, -0.5)


def _hide_ticks(axes: Axes) -> None:
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set_visible(False)


def _draw_scale(figure: Figure) -> None:
    """One colour bar for all panels, as each is scaled from zero to its own maximum."""
    width = figure.get_figwidth()
    share = min(0.5, 2.4 / figure.get_figheight())
    axes = figure.add_axes((1 - 0.62 / width, 0.5 - share / 2, 0.13 / width, share))
    bar = figure.colorbar(ScalarMappable(Normalize(0, 1), COLOUR_MAP), cax=axes, ticks=[0, 0.5, 1])
    bar.ax.set_yticklabels(['0', 'half', 'max'], fontsize=8)
    bar.outline.set_visible(False)


def save_figure(figure: Figure, path: str | os.PathLike, dpi: int = 110) -> None:
    """Write a figure atomically, as PNG or in the format of the suffix."""
    path = Path(path)
    kind = path.suffix.lstrip('.').lower() or 'png'
    FigureCanvasAgg(figure)
    if kind not in figure.canvas.get_supported_filetypes():
        raise UserError(f"Cannot write '{path}': pictures can be {', '.join(figure.canvas.get_supported_filetypes())}.")
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as temporary:
        figure.savefig(temporary, format=kind, dpi=dpi)
