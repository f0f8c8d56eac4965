"""Figure 2: AP by epoch of several runs, and losses by iteration, from the JSON that mmengine writes into vis_data/."""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from mmcondetr.errors import UserError
from mmcondetr.visualization.colours import OKABE_ITO
from mmcondetr.visualization.panels import save_figure

METRIC = 'coco/bbox_mAP'
COLOURS = tuple(OKABE_ITO.values())
MARKERS = 'osD^vPX'  # say the same again


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


def is_loss(metric: str) -> bool:
    """Whether the best value is the least."""
    return 'loss' in metric.rpartition('/')[2]


def is_fraction(metric: str) -> bool:
    """Whether it is a measure from 0 to 1 of an evaluation, which is shown in %; losses, rates and times are not."""
    return '/' in metric and not is_loss(metric)


def format_value(metric: str, value: float) -> str:
    """As it is shown: measures in %, everything else with four digits."""
    return f'{100 * value:.1f}' if is_fraction(metric) else f'{value:.4g}'


def describe(curve: Curve, metric: str) -> str:
    """The last value and the best, where there is one: the least of a loss, the greatest of a measure."""
    text = f'{curve.name}: last {format_value(metric, curve.values[-1])} at {curve.unit} {curve.steps[-1]}'
    if is_loss(metric) or is_fraction(metric):
        choose = min if is_loss(metric) else max
        best = choose(range(len(curve.values)), key=curve.values.__getitem__)
        text += f', best {format_value(metric, curve.values[best])} at {curve.unit} {curve.steps[best]}'
    return text


def read_curve(path: str | os.PathLike, metric: str = METRIC, name: str | None = None) -> Curve:
    """Read a run's log.

    Args:
        path: a log (one JSON object a line), or a work directory: all logs in it in order of time, so that a resumed
            run is one curve, the later log winning where both evaluated the same epoch.
        metric: key in the log: of an evaluation, by epoch or iteration, or of training ('loss', 'lr'), by iteration.
        name: of the curve; the work directory's name where None.

    Raises:
        UserError: there is no log, it cannot be read, or the metric is not in it.
    """
    path = Path(path)
    values: dict[int, float] = {}
    seen, by_epoch, in_training = set(), False, False
    for record in read_records(path):
        by_epoch = by_epoch or 'epoch' in record
        training = 'iter' in record  # its step counts iterations, an evaluation's epochs where the loop does
        seen |= {key for key in record if '/' in key or 'loss' in key}
        if metric in record:
            values[int(record['step'])] = float(record[metric])
            in_training = in_training or training
    if not values:
        known = ', '.join(sorted(seen))
        if not any('/' in key for key in seen):
            known = f'{known}, and no evaluation at all' if known else 'no evaluation at all'
        raise UserError(f"'{path}' has no value of '{metric}'. It has: {known}.")
    steps = tuple(sorted(values))
    unit = 'epoch' if by_epoch and not in_training else 'iteration'
    return Curve(name or _name_of(path), unit, steps, tuple(values[s] for s in steps))


def plot_convergence(curves: Sequence[Curve], out_png: str | os.PathLike, metric: str = METRIC) -> None:
    """Draw the curves of one metric.

    Raises:
        UserError: some runs count epochs and others iterations.

    Paper: Figure 2.
    """
    plot_curves({metric: curves}, out_png)


def plot_curves(curves: Mapping[str, Sequence[Curve]], out_png: str | os.PathLike) -> None:
    """Draw several metrics, one below the other.

    Args:
        curves: the runs' curves by metric.
        out_png: the file to write.

    Raises:
        UserError: of one metric some runs count epochs and others iterations.
    """
    figure = Figure(figsize=(6.4, 4.2 + 3.4 * (len(curves) - 1)), layout='constrained')
    for axes, (metric, runs) in zip(figure.subplots(len(curves), squeeze=False)[:, 0], curves.items()):
        _draw(axes, metric, runs)
    save_figure(figure, out_png, dpi=130)


def _draw(axes: Axes, metric: str, curves: Sequence[Curve]) -> None:
    units = sorted({curve.unit for curve in curves})
    if len(units) > 1:
        shown = '; '.join(f'{curve.name}: {curve.unit}' for curve in curves)
        raise UserError(f'Runs that count epochs and runs that count iterations do not go into one plot ({shown}).')
    factor = 100 if is_fraction(metric) else 1
    for index, curve in enumerate(curves):
        axes.plot(
            curve.steps,
            [factor * value for value in curve.values],
            color=COLOURS[index % len(COLOURS)],
            marker=MARKERS[index % len(MARKERS)] if len(curve.steps) <= 60 else None,
            markersize=4,
            linewidth=1.8,
            label=f'{curve.name} (last {format_value(metric, curve.values[-1])})',
        )
    axes.set_xlabel(units[0])
    axes.set_ylabel('AP (COCO, %)' if metric == METRIC else f'{metric} (%)' if factor == 100 else metric)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_ylim(bottom=0)
    axes.grid(alpha=0.25)
    axes.spines[['top', 'right']].set_visible(False)
    axes.legend(frameon=False, loc='best')


def read_records(path: str | os.PathLike) -> list[dict]:
    """The objects of a log, or of all logs of a work directory in order of time: losses and evaluations.

    Raises:
        UserError: there is no log, or it cannot be read.
    """
    return [record for log in _find_logs(Path(path)) for record in _read_log(log)]


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


def _read_log(log: Path) -> list[dict]:
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
