"""The extremity measurement as a Markdown table, a bar plot and JSON."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from mmcondetr import markdown
from mmcondetr.visualization.colours import OKABE_ITO
from mmcondetr.visualization.extremities import BAND, EDGES, REGIONS, ExtremityTable
from mmcondetr.visualization.panels import save_figure
from mmcondetr.writing import replacing

MOST_COVERED = 1 / 3  # share of the image; if the edge bands cover more, they prove little
COLOURS = (*(OKABE_ITO[name] for name in ('blue', 'sky', 'vermilion', 'orange', 'green')), '#BBBBBB')  # outside: grey


def summarise(table: ExtremityTable) -> str:
    """A summary of the table in a few lines."""
    edges = table.shares[:, EDGES].sum(axis=1)
    favourites = [table.favourite(head) for head in range(len(table.shares))]
    counts = ', '.join(f'{favourites.count(region)} {region}' for region in REGIONS if region in favourites)
    return (
        f'{table.kind} attention of decoder layer {table.layer}: {table.detections} detections in {table.images} '
        f'images ({table.skipped} too small, skipped).\n'
        f'The four edge bands contain {edges.mean():.1%} of the mass, chance {table.chance[EDGES].sum():.1%}: '
        f'{edges.mean() / table.chance[EDGES].sum():.2f} times chance; the inside '
        f'{table.shares[:, 4].mean():.1%}, chance {table.chance[4]:.1%}: '
        f'{table.shares[:, 4].mean() / table.chance[4]:.2f} times chance.\n'
        f'Most above chance by head: {counts}.' + _warning(table)
    )


def _warning(table: ExtremityTable) -> str:
    """A warning if the bands cover most of the image, where their mass is no evidence of attention to edges."""
    covered = table.chance[EDGES].sum()
    if covered <= MOST_COVERED:
        return ''
    return (
        f'\nwarning: the edge bands cover {covered:.0%} of the image on average, because the objects are large: a '
        'head that attends to the whole object or image also has much of its mass there. Compare lifts, not shares, or '
        'measure smaller objects.'
    )


def to_markdown(table: ExtremityTable) -> str:
    """Shares in percent, with the lift over chance in brackets; the last column is the region with the largest lift."""
    mean = table.shares.mean(axis=0)
    rows = [
        [head, *_cells(shares, table.chance), f'{100 * shares[EDGES].sum():.1f}', table.favourite(head)]
        for head, shares in enumerate(table.shares)
    ]
    rows.append(['mean', *_cells(mean, table.chance), f'{100 * mean[EDGES].sum():.1f}', ''])
    areas = [f'{100 * area:.1f}' for area in table.chance]
    rows.append(['chance (area)', *areas, f'{100 * table.chance[EDGES].sum():.1f}', ''])
    return markdown.table(['head', *REGIONS, 'edges', 'most above chance'], rows)


def _cells(shares: np.ndarray, chance: np.ndarray) -> list[str]:
    return [f'{100 * share:.1f} ({share / area:.1f}x)' for share, area in zip(shares, chance)]


def plot_table(table: ExtremityTable, out_png: str | os.PathLike) -> None:
    """Bars of each head's shares with the chance level."""
    num_heads = len(table.shares)
    figure = Figure(figsize=(max(6.4, 1.35 * num_heads + 1.2), 3.9), layout='constrained')
    axes = figure.add_subplot()
    width = 0.8 / len(REGIONS)
    for index, region in enumerate(REGIONS):
        place = np.arange(num_heads) + (index - (len(REGIONS) - 1) / 2) * width
        axes.bar(
            place,
            100 * table.shares[:, index],
            width * 0.92,
            yerr=100 * table.errors[:, index],
            label=region,
            color=COLOURS[index],
            error_kw=dict(linewidth=0.8, ecolor='#333333'),
        )
        axes.hlines(
            np.full(num_heads, 100 * table.chance[index]),
            place - width / 2,
            place + width / 2,
            colors='black',
            linewidth=1.6,
            label='chance (area)' if index == len(REGIONS) - 1 else None,
        )
    axes.set_xticks(range(num_heads), [f'head {head}' for head in range(num_heads)])
    axes.set_ylabel(f'mass of the {table.kind} map (%)')
    axes.set_title(
        f'Where the heads attend, relative to the box: layer {table.layer}, {table.detections} detections',
        fontsize=10.5,
    )
    axes.spines[['top', 'right']].set_visible(False)
    axes.legend(ncols=len(REGIONS) + 1, frameon=False, fontsize=8, loc='upper center', bbox_to_anchor=(0.5, -0.1))
    save_figure(figure, out_png, dpi=120)


def write_json(table: ExtremityTable, path: str | os.PathLike) -> None:
    """Write all numbers, the names of the regions and the bands' width as JSON."""
    values = {key: value.tolist() if isinstance(value, np.ndarray) else value for key, value in table._asdict().items()}
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(dict(values, regions=REGIONS, band=BAND), indent=1))
