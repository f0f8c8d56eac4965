"""Figure 2: AP by epoch of several runs in one plot, from the JSON that mmengine writes into vis_data/."""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from mmcondetr.errors import UserError
from mmcondetr.visualization.panels import save_figure

METRIC = 'coco/bbox_mAP'
#: Okabe and Ito's colours, which can be told apart with any colour vision; markers say the same again.
COLOURS = ('#0072B2', '#D55E00', '#009E73', '#CC79A7', '#E69F00', '#56B4E9', '#000000')
MARKERS = 'osD^vPX'


class Curve(NamedTuple):
    """One run.

    Attributes:
        name: for the legend.
        unit: what the steps count, 'epoch' or 'iteration'.
        steps: at which the model was evaluated, rising.
        values: of the metric.
    """

    name: str
    unit: str
    steps: tuple[int, ...]
    values: tuple[float, ...]


def read_curve(path: str | os.PathLike, metric: str = METRIC, name: str | None = None) -> Curve:
    """Read a run's log.

    Args:
        path: a log (one JSON object a line), or a work directory: all logs in it in order of time, so that a resumed
            run is one curve, the later log winning where both evaluated the same epoch.
        metric: key of the metric in the log.
        name: of the curve; the work directory's name where None.

    Raises:
        UserError: there is no log, it cannot be read, or no evaluation is in it.
    """
    path = Path(path)
    logs = _find_logs(path)
    values: dict[int, float] = {}
    seen, by_epoch = set(), False
    for log in logs:
        for record in _read_records(log):
            by_epoch = by_epoch or 'epoch' in record
            if 'loss' not in record:
                seen |= record.keys()
            if metric in record:
                values[int(record['step'])] = float(record[metric])
    if not values:
        known = ', '.join(sorted(key for key in seen if '/' in key)) or 'no evaluation at all'
        raise UserError(f"'{path}' has no value of '{metric}'. It has: {known}.")
    steps = tuple(sorted(values))
    return Curve(name or _name_of(path), 'epoch' if by_epoch else 'iteration', steps, tuple(values[s] for s in steps))


def plot_convergence(curves: Sequence[Curve], out_png: str | os.PathLike, metric: str = METRIC) -> None:
    """Draw the curves.

    Raises:
        UserError: some runs count epochs and others iterations.

    Paper: Figure 2.
    """
    units = sorted({curve.unit for curve in curves})
    if len(units) > 1:
        shown = '; '.join(f'{curve.name}: {curve.unit}' for curve in curves)
        raise UserError(f'Runs that count epochs and runs that count iterations do not go into one plot ({shown}).')
    figure = Figure(figsize=(6.4, 4.2), layout='constrained')
    axes = figure.add_subplot()
    for index, curve in enumerate(curves):
        colour = COLOURS[index % len(COLOURS)]
        axes.plot(
            curve.steps,
            [100 * value for value in curve.values],
            color=colour,
            marker=MARKERS[index % len(MARKERS)],
            markersize=4,
            linewidth=1.8,
            label=f'{curve.name} (last {100 * curve.values[-1]:.1f})',
        )
    axes.set_xlabel(units[0])
    axes.set_ylabel('AP (COCO, %)' if metric == METRIC else f'{metric} (%)')
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_ylim(bottom=0)
    axes.grid(alpha=0.25)
    axes.spines[['top', 'right']].set_visible(False)
    axes.legend(frameon=False, loc='best')
    save_figure(figure, out_png, dpi=130)


def _find_logs(path: Path) -> list[Path]:
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise UserError(f"Log '{path}' does not exist.")
    logs = sorted(path.glob('**/vis_data/scalars.json'))  # folders are named by date and time
    if not logs:
        raise UserError(
            f"There is no vis_data/scalars.json in '{path}' or below: name a work directory of training, "
            'or such a file.'
        )
    return logs


def _read_records(log: Path) -> list[dict]:
    """The log's objects; a last line that a kill cut short is left out with a warning."""
    try:
        lines = [line for line in log.read_text(encoding='utf-8').splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"Log '{log}' cannot be read: {error}.") from error
    records = []
    for number, line in enumerate(lines, start=1):
        try:
            record = json.loads(line)
        except ValueError as error:
            if number == len(lines) and number > 1:
                warnings.warn(f"The last line of '{log}' is cut short and left out.", stacklevel=2)
                break
            raise UserError(
                f"Log '{log}', line {number} is not JSON: {error}. mmengine writes one object a line into "
                'vis_data/scalars.json.'
            ) from error
        if not isinstance(record, dict):
            raise UserError(f"Log '{log}', line {number} is no JSON object: mmengine's logs have one a line.")
        records.append(record)
    return records


def _name_of(path: Path) -> str:
    """The work directory's name: <work dir>/<time>/vis_data/<log>."""
    path = path.resolve()
    if path.is_dir():
        return path.name
    return path.parents[2].name if path.parent.name == 'vis_data' else path.stem
