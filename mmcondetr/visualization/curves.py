"""Figure 2: AP by epoch of several runs, and losses by iteration, from mmengine's JSON logs in vis_data/."""

from __future__ import annotations

import json
import math
import os
import warnings
from collections.abc import Mapping, Sequence
from itertools import chain
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
MARKERS = 'osD^vPX'  # distinguish curves without colour
MOST_BYTES = 1 << 30  # of a log: 500 epochs of COCO, a line every 50 steps, are some 75 MB
LARGEST = 2**53  # of steps, and of integers


class Curve(NamedTuple):
    """One run.

    Attributes:
        name: for the legend.
        unit: of the steps, 'epoch' or 'iteration'.
        steps: of the evaluations, ascending.
        values: of the metric.
    """

    name: str
    unit: str
    steps: tuple[int, ...]
    values: tuple[float, ...]


def is_loss(metric: str) -> bool:
    """Whether lower values are better."""
    return 'loss' in metric.rpartition('/')[2]


def is_fraction(metric: str) -> bool:
    """Whether it is an evaluation metric from 0 to 1, shown in %; losses, learning rates and times are not."""
    return '/' in metric and not is_loss(metric)


def format_value(metric: str, value: float) -> str:
    """Format a value for display: metrics in %, everything else with four digits."""
    return f'{100 * value:.1f}' if is_fraction(metric) else f'{value:.4g}'


def describe(curve: Curve, metric: str) -> str:
    """The last value, and for losses and metrics the best one."""
    text = f'{curve.name}: last {format_value(metric, curve.values[-1])} at {curve.unit} {curve.steps[-1]}'
    if is_loss(metric) or is_fraction(metric):
        choose = min if is_loss(metric) else max
        best = choose(range(len(curve.values)), key=curve.values.__getitem__)
        text += f', best {format_value(metric, curve.values[best])} at {curve.unit} {curve.steps[best]}'
    return text


def read_curve(path: str | os.PathLike, metric: str = METRIC, name: str | None = None) -> Curve:
    """Read a run's log.

    Args:
        path: a log (one JSON object per line), or a work directory, whose logs are joined in chronological order, so
            that a resumed run is one curve. From where a later log begins, what earlier ones have is left out: nothing
            of a run before remains if training was started anew.
        metric: key in the log: of an evaluation, by epoch or iteration, or of training ('loss', 'lr'), by iteration.
        name: of the curve; the work directory's name if None.

    Raises:
        UserError: there is no log, it cannot be read, or the metric is not in it.
    """
    path = Path(path)
    logs = [_read_log(log) for log in _find_logs(path)]
    records = list(chain.from_iterable(logs))
    training = [record for record in records if 'iter' in record]
    # Training steps count iterations; evaluation steps may count epochs.
    by_epoch = any('epoch' in record for record in training) and not any(metric in record for record in training)
    counted = 'epoch' if by_epoch else 'iter'
    values: dict[int, float] = {}
    for log in logs:
        begin = min((record.get(counted, math.inf) for record in log if 'iter' in record), default=math.inf)
        values = {step: value for step, value in values.items() if step < begin}
        for record in log:
            if metric in record:
                value = _number(record, metric, path)
                if 'step' not in record:
                    raise UserError(f"Log of '{path}': a record with '{metric}' has no 'step'.")
                values[int(record['step'])] = value
    if not values:
        seen = {key for record in records for key in record if '/' in key or 'loss' in key}
        known = ', '.join(sorted(seen))
        if metric in seen:
            raise UserError(f"'{path}' has no value of '{metric}' since training was started anew there.")
        if not any('/' in key for key in seen):
            known = f'{known}, but no evaluation' if known else 'no evaluation'
        raise UserError(f"'{path}' has no value of '{metric}'. It has: {known}.")
    steps = tuple(sorted(values))
    return Curve(name or _name_of(path), 'epoch' if by_epoch else 'iteration', steps, tuple(values[s] for s in steps))


def plot_convergence(curves: Sequence[Curve], out_png: str | os.PathLike, metric: str = METRIC) -> None:
    """Draw the curves of one metric.

    Raises:
        UserError: some runs count epochs and others iterations.

    Paper: Figure 2.
    """
    plot_curves({metric: curves}, out_png)


def plot_curves(curves: Mapping[str, Sequence[Curve]], out_png: str | os.PathLike) -> None:
    """Draw several metrics, one below another.

    Args:
        curves: the runs' curves by metric.
        out_png: the file to write.

    Raises:
        UserError: for one metric, some runs count epochs and others iterations.
    """
    figure = Figure(figsize=(6.4, 4.2 + 3.4 * (len(curves) - 1)), layout='constrained')
    for axes, (metric, runs) in zip(figure.subplots(len(curves), squeeze=False)[:, 0], curves.items()):
        _draw(axes, metric, runs)
    save_figure(figure, out_png, dpi=130)


def _draw(axes: Axes, metric: str, curves: Sequence[Curve]) -> None:
    units = sorted({curve.unit for curve in curves})
    if len(units) > 1:
        shown = '; '.join(f'{curve.name}: {curve.unit}' for curve in curves)
        raise UserError(f'Runs that count epochs and runs that count iterations cannot be plotted together ({shown}).')
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
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))  # of one evaluation, too
    axes.set_ylim(bottom=0)
    axes.grid(alpha=0.25)
    axes.spines[['top', 'right']].set_visible(False)
    for text in axes.legend(frameon=False, loc='best').get_texts():
        text.set_parse_math(False)  # names of folders


def read_records(path: str | os.PathLike) -> list[dict]:
    """The records of a log, or of all logs in a work directory in chronological order: losses and evaluations.

    Raises:
        UserError: there is no log, or it cannot be read.
    """
    return [record for log in _find_logs(Path(path)) for record in _read_log(log)]


def _number(record: dict, key: str, log: Path, whole: bool = False) -> float:
    value = record[key]
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        if abs(value) < LARGEST or not (whole or isinstance(value, int)):  # a loss may be infinite or NaN
            return float(value)
    raise UserError(f"Log of '{log}': '{key}' must be a number, not {value!r:.40}.")


def _find_logs(path: Path) -> list[Path]:
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise UserError(f"Log '{path}' does not exist.")
    logs = sorted(path.glob('**/vis_data/scalars.json'))  # folders are named by date and time
    if not logs:
        raise UserError(
            f"There is no vis_data/scalars.json in '{path}' or below: pass a training work directory, or such a file."
        )
    return logs


def _read_log(log: Path) -> list[dict]:
    """The records of a log; an incomplete last line, as of a killed run, is skipped with a warning."""
    if not log.is_file():
        raise UserError(f"Log '{log}' is not a file.")
    try:
        if log.stat().st_size > MOST_BYTES:
            raise UserError(f"Log '{log}' is larger than {MOST_BYTES >> 20} MiB.")
        lines = [line for line in log.read_text(encoding='utf-8').splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"Log '{log}' cannot be read: {error}.") from error
    records = []
    for number, line in enumerate(lines, start=1):
        try:
            record = json.loads(line)
        except (ValueError, RecursionError) as error:
            if number == len(lines) and number > 1:
                warnings.warn(f"The last line of '{log}' is incomplete and was skipped.", stacklevel=2)
                break
            raise UserError(
                f"Log '{log}', line {number} is not JSON: {error}. mmengine writes one object per line into "
                'vis_data/scalars.json.'
            ) from error
        if not isinstance(record, dict):
            raise UserError(f"Log '{log}', line {number} is not a JSON object: mmengine's logs have one per line.")
        for key in ('step', 'epoch', 'iter'):
            if key in record:
                _number(record, key, log, whole=True)
        records.append(record)
    return records


def _name_of(path: Path) -> str:
    """The work directory's name: <work dir>/<time>/vis_data/<log>."""
    path = path.resolve()
    if path.is_dir():
        return path.name
    return path.parents[2].name if path.parent.name == 'vis_data' else path.stem
