"""Reports the runs of tools/convergence: epochs to given APs, how many times faster than DETR, a table, a plot."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import fmean, median, stdev

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from mmcondetr import markdown
from mmcondetr.visualization.curves import COLOURS
from tools.convergence.results import check_comparable
from tools.convergence.runs import SYSTEMS

REFERENCE = 'detr'
PLAIN = 'conditional-detr'  # the system whose training step the others' are compared with


def _place(system: str) -> tuple[int, str]:
    """The order of systems in a report: as in SYSTEMS, removed ones last."""
    return list(SYSTEMS).index(system) if system in SYSTEMS else len(SYSTEMS), system


def _spread(values: Sequence[float]) -> dict:
    return dict(mean=fmean(values), std=stdev(values) if len(values) > 1 else 0.0, values=list(values))


def _crossing(run: dict, target: float) -> float | None:
    """The epochs at which a run's curve, straight from 0 and between evaluations, first has an AP; None if never."""
    before = (0, 0.0)
    for step, ap in zip(run['steps'], run['ap']):
        if ap >= target:
            return before[0] + (step - before[0]) * (target - before[1]) / (ap - before[1])
        before = (step, ap)
    return None


def _finals(runs: Sequence[dict]) -> list[float]:
    """The last APs of the runs that were trained to the end of their budget."""
    return [run['ap'][-1] for run in runs if len(run['ap']) == run['epochs']]


def _epochs_to(runs: Sequence[dict], target: float) -> dict | None:
    """Mean and spread of the epochs to a target; None unless there are runs and all reached it."""
    reached = [_crossing(run, target) for run in runs]
    return _spread(reached) if reached and None not in reached else None


def _ratio(theirs: dict | None, ours: dict | None) -> float | None:
    return theirs['mean'] / ours['mean'] if theirs and ours else None


def _batch_size(base: str | None) -> int:
    """Images of a training step, which a config's name tells: 16 of ``conditional-detr_r18_small_1xb16-24e_shapes``."""
    found = re.search(r'_(\d+)xb(\d+)-', str(base))
    return int(found[1]) * int(found[2]) if found else 1


def beside(runs: Sequence[dict]) -> list[dict]:
    """DETR's runs of another comparison, under a name that says which: ``detr (small_1xb16-24e_shapes)``."""

    def base(run: dict) -> str:
        return str(run.get('base')).split()[0].removeprefix(f'{PLAIN}_r18_')

    return [dict(run, system=f'{REFERENCE} ({base(run)})') for run in runs if run['system'] == REFERENCE]


def summarise(
    runs: Sequence[dict],
    targets: Sequence[float],
    seconds: Mapping[str, Sequence[float]] = {},
    reference: Sequence[dict] = (),
) -> dict:
    """Summarise the runs.

    Args:
        runs: of any systems and seeds.
        targets: APs; each system's report has the epochs after which each was first reached, by linear interpolation
            between evaluations.
        seconds: of training steps that were measured in turn (:mod:`tools.convergence.timing`), by system.
        reference: DETR's runs of another comparison (:func:`beside`), to compare with instead of the runs' own.

    Returns:
        ``targets`` and ``systems``: per system the seeds, the budget, the epochs that each seed was trained, the start,
        the final AP (None if all were stopped before), the epochs to every target (None unless all seeds reached it),
        the epochs to DETR's mean final AP, and how many times faster than DETR each of these is. Where training steps
        were measured: their median, the time of an epoch as a ratio to plain Conditional DETR's, and how many times
        faster than DETR each target is reached in time. If DETR ends below the lowest target, it has learned too little
        for a comparison at the end, and ``detrs_final_ap`` is None.
    """
    check_comparable(runs)
    by_system: dict[str, list[dict]] = {}
    for run in [*reference, *sorted(runs, key=lambda run: _place(run['system']))]:
        by_system.setdefault(run['system'], []).append(run)
    reference = reference or by_system.get(REFERENCE, [])
    reference_final = fmean(_finals(reference) or [0.0])
    comparable = reference_final >= min(targets)
    image_seconds = {
        name: median(seconds[name]) / _batch_size(own[0].get('base'))
        for name, own in by_system.items()
        if name in seconds
    }
    systems = {}
    for name, own in by_system.items():
        reached = {str(target): _epochs_to(own, target) for target in targets}
        faster = {str(target): _ratio(_epochs_to(reference, target), _epochs_to(own, target)) for target in targets}
        matched = _epochs_to(own, reference_final) if comparable else None
        systems[name] = dict(
            seeds=[run['seed'] for run in own],
            epochs=own[0]['epochs'],
            trained=[len(run['ap']) for run in own],
            base=own[0].get('base'),
            backbone=own[0].get('backbone'),
            final_ap=_spread(finals) if (finals := _finals(own)) else None,
            epochs_to_targets=reached,
            faster_to_targets=faster,
            epochs_to_detrs_final_ap=matched,
            faster_to_detrs_final_ap=reference[0]['epochs'] / matched['mean'] if matched else None,
        )
        if name in image_seconds and PLAIN in image_seconds:
            systems[name].update(
                step_seconds=median(seconds[name]), epoch_ratio=image_seconds[name] / image_seconds[PLAIN]
            )
            if reference and (theirs := image_seconds.get(reference[0]['system'])):
                systems[name]['faster_in_time'] = {
                    target: epochs and epochs * theirs / image_seconds[name] for target, epochs in faster.items()
                }
    return dict(
        metric='COCO AP', targets=list(targets), detrs_final_ap=reference_final if comparable else None, systems=systems
    )


def table(report: dict) -> str:
    """The report as a Markdown table, one row per system.

    Targets that not all seeds of a system reached are marked: 'stopped before' if those that missed it were stopped
    before the end of their budget, else 'not reached'.
    """
    targets = [str(target) for target in report['targets']]
    reached = [f'epochs to AP {target}' for target in targets]
    timed = any('epoch_ratio' in system for system in report['systems'].values())
    stopped = any(_was_stopped(system) for system in report['systems'].values())
    heading = ['system', 'seeds', *(['time of an epoch'] if timed else []), *(['epochs trained'] if stopped else [])]
    heading += ['AP at the end', *reached]
    heading.append("epochs to DETR's final AP")
    rows = []
    for system_name, system in report['systems'].items():
        in_time = system.get('faster_in_time', {})
        reached = [
            _cell(system['epochs_to_targets'][name], system['faster_to_targets'][name], in_time.get(name))
            or _missing(system, float(name))
            for name in targets
        ]
        at_the_end = _cell(system['epochs_to_detrs_final_ap'], system['faster_to_detrs_final_ap'])
        own = system_name.partition(' ')[0] == REFERENCE or report['detrs_final_ap'] is None
        rows.append(
            [
                system_name,
                len(system['seeds']),
                *([_time(system)] if timed else []),
                *([', '.join(map(str, system['trained']))] if stopped else []),
                _final(system['final_ap']),
                *reached,
                '-' if own else at_the_end or _missing(system, report['detrs_final_ap']),
            ]
        )
    return markdown.table(heading, rows)


def trials_table(trials: Sequence[dict], targets: Sequence[float] = (0.3, 0.4)) -> str:
    """Single runs of settings that are in no comparison, a row each: ``setting``, ``seed``, and ``ap`` by epoch."""
    longest = max(len(trial['ap']) for trial in trials)
    rows = []
    for trial in trials:
        curve = dict(trial, steps=range(1, len(trial['ap']) + 1))
        reached = [_crossing(curve, target) for target in targets]
        aps = [f'{ap:.3f}' for ap in trial['ap']] + ['-'] * (longest - len(trial['ap']))
        rows.append([trial['setting'], trial['seed'], *aps, *('-' if at is None else f'{at:.1f}' for at in reached)])
    epochs = [f'epoch {epoch}' for epoch in range(1, longest + 1)]
    return markdown.table(['setting', 'seed', *epochs, *(f'epochs to AP {target}' for target in targets)], rows)


def recipes_table(runs: Sequence[dict], link: Callable[[str], str]) -> str:
    """Configs trained as they are, a row each: means over their seeds, ± the standard deviation.

    Args:
        runs: ``config`` (its path, or the command that writes it), ``what``, ``steps``, ``seed``, and ``ap``, ``ap50``
            and ``ap75`` at the end.
        link: from a config's path to a link on the page.
    """
    by_config: dict[tuple[str, str], list[dict]] = {}
    for run in runs:
        by_config.setdefault((run['config'], run['what']), []).append(run)
    rows = []
    for (config, what), own in by_config.items():
        measured = [_final(_spread([run[name] for run in own])) for name in ('ap', 'ap50', 'ap75')]
        rows.append([link(config), what, f'{own[0]["steps"]:,}', len(own), *measured])
    return markdown.table(['config', 'with', 'steps', 'seeds', 'AP on val', 'AP50', 'AP75'], rows)


def _final(ap: dict | None) -> str:
    if not ap:
        return '-'
    return f'{ap["mean"]:.3f}' + (f' ± {ap["std"]:.3f}' if len(ap['values']) > 1 else '')


def _time(system: dict) -> str:
    return f'{system["epoch_ratio"]:.2f} ({system["step_seconds"]:.2f} s a step)' if 'epoch_ratio' in system else '-'


def _was_stopped(system: dict) -> bool:
    """Whether a seed was stopped before the end of its budget."""
    return min(system.get('trained', [system['epochs']])) < system['epochs']


def _missing(system: dict, target: float) -> str:
    """Why there are no epochs to a target."""
    finished = system['final_ap']['values'] if system['final_ap'] else []
    return 'stopped before' if _was_stopped(system) and all(ap >= target for ap in finished) else 'not reached'


def _cell(reached: dict | None, faster: float | None, in_time: float | None = None) -> str:
    if not reached:
        return ''
    epochs = ', '.join(f'{value:.1f}' for value in reached['values'])
    if not faster or round(faster, 6) == 1:
        return epochs
    return f'{epochs} ({faster:.1f}x' + (f', in time {in_time:.1f}x)' if in_time else ')')


def plot(runs: Sequence[dict], path: Path, targets: Sequence[float]) -> None:
    """Draw the mean AP by epoch of every system, and one standard deviation over its seeds on both sides.

    Where some seeds of a system were stopped, the others are drawn as thin lines. More systems than there are colours
    are two panels: variants of Conditional DETR, and the rest.
    """
    names = sorted({run['system'] for run in runs}, key=_place)
    panels = [names]
    if len(names) > len(COLOURS):
        ours = [name for name in names if name.startswith(PLAIN)]
        panels = [ours, [name for name in names if name not in ours]]
    many = len(names) > 4
    size = (9.6, 5.4 * len(panels)) if many else (7.2, 4.6)
    figure = Figure(figsize=size, layout='constrained')
    for axes, shown in zip(figure.subplots(len(panels), sharex=True, sharey=True, squeeze=False)[:, 0], panels):
        for index, name in enumerate(shown):
            style = dict(color=COLOURS[index % len(COLOURS)], linestyle=('-', '--', ':')[index // len(COLOURS) % 3])
            _draw(axes, name, [run for run in runs if run['system'] == name], style)
        for target in targets:
            axes.axhline(target, color='grey', linewidth=0.8)
        axes.set_ylabel('AP (COCO)')
        axes.set_ylim(bottom=0)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.grid(alpha=0.25)
        axes.legend(frameon=False, **(dict(loc='center left', bbox_to_anchor=(1, 0.5)) if many else {}))
    axes.set_xlabel('epoch')
    figure.savefig(path, dpi=130)


def _draw(axes: Axes, name: str, runs: Sequence[dict], style: Mapping[str, str]) -> None:
    """One system's curves."""
    columns = [_spread(column) for column in zip(*(run['ap'] for run in runs))]
    steps = runs[0]['steps'][: len(columns)]
    mean, std = [column['mean'] for column in columns], [column['std'] for column in columns]
    axes.plot(steps, mean, label=f'{name} ({len(runs)} seed{"s" if len(runs) > 1 else ""})', **style)
    lower, upper = [a - b for a, b in zip(mean, std)], [a + b for a, b in zip(mean, std)]
    axes.fill_between(steps, lower, upper, color=style['color'], alpha=0.15, linewidth=0)
    for run in runs:
        if len(run['ap']) > len(steps):
            axes.plot(run['steps'], run['ap'], linewidth=0.8, **style)
