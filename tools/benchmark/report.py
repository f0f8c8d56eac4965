"""From records to Markdown: ratios, goals, the table of implementations, the split by part, the growth."""

from __future__ import annotations

import os
from collections.abc import Iterable
from statistics import median

from mmcondetr.markdown import replace_section, table, wrap
from tools.benchmark import deployment
from tools.benchmark.workload import IMPLEMENTATIONS

#: The project's goals, ratios to mmdet's: inference fp32, inference bf16, training step fp32, peak memory in training.
GOALS = {
    ('cpu', 'r50'): (0.50, 0.15, 0.80, 0.85),
    ('cpu', 'r50-dc5'): (0.38, 0.13, 0.60, 0.50),
    ('cuda', 'r50'): (0.50, 0.40, 0.50, 0.60),
    ('cuda', 'r50-dc5'): (0.40, 0.30, 0.40, 0.35),
}
#: The work that they apply to: images of 800 x 1066, 300 queries, one image on a CPU and two on a GPU.
GOAL_WORK = dict(
    cpu=dict(height=800, width=1066, queries=300, batch=1), cuda=dict(height=800, width=1066, queries=300, batch=2)
)
_DEVICES = dict(cpu='CPU', cuda='GPU')
COLUMNS = ('inference fp32', 'inference bf16', 'training step fp32', 'peak memory, training')
#: Markers of the sections of pages that are written here.
BEGIN, END = '<!-- {}: begin -->', '<!-- {}: end -->'


def markdown(results: dict) -> str:
    """The whole report of one run."""
    blocks = [_header(results['environment'])]
    if _compares_implementations(results):
        blocks += ['## Ratios', ratios_table(results)]
    headings = dict(inference='Inference', training='Training step', groups='Training step with groups of queries')
    for part, heading in headings.items():
        for cell in _cells(results, part):
            blocks += [f'## {heading}: {_where(cell)}', entries_table(cell, results['environment'])]
    for mode, heading in (('inference', 'an inference'), ('training', 'a training step')):
        split = [cell for cell in _cells(results, 'split') if cell['records'][0]['workload']['mode'] == mode]
        if split:
            blocks += [f'## Where the time of {heading} goes', split_table(split)]
    for part, heading in (('sizes', 'Growth with the image'), ('queries', 'Growth with the number of queries')):
        if _cells(results, part):
            blocks += [f'## {heading}', growth_table(_cells(results, part), part)]
    if deployment.has_cells(results):
        blocks += ['## Exported files', deployment.sections([results])['deployment-goals']]
    return wrap('\n\n'.join(blocks)) + '\n'


def ratios_table(results: dict) -> str:
    """Ratios to mmdet's fp32 in the same run, of the work that the goals are for."""
    models = [model for device, model in GOALS if device == results['environment']['kind']]
    rows = [[model, *map(_ratio, _ratios(results, model))] for model in models]
    return table(['ratio to mmdet', *COLUMNS], rows)


def goals_table(results: dict) -> str:
    """Each goal beside the ratio measured for its work, to mmdet's fp32 in the same run."""
    kind = results['environment']['kind']
    rows = []
    for (device, model), goals in GOALS.items():
        if device != kind:
            continue
        measured = _ratios(results, model)
        cells = [f'{_ratio(value)} (goal <= {goal:.2f}{_verdict(value, goal)})' for value, goal in zip(measured, goals)]
        if device == 'cpu' and 'amx_bf16' not in results['environment']['instruction_sets']:
            cells[1] = f'{_ratio(measured[1])} (the goal <= {goals[1]:.2f} is for amx_bf16)'
        rows.append([model, *cells])
    return table(['ratio to mmdet', *COLUMNS], rows)


def entries_table(cell: dict, environment: dict) -> str:
    """Every entry of one cell: median, spread, ratio, memory."""
    reference = cell['records'][0]
    rows = []
    for record in cell['records']:
        workload = record['workload']
        name = f'{IMPLEMENTATIONS[workload["implementation"]]}, {workload["precision"]}'
        if 'unavailable' in record:
            rows.append([name, f'not measured: {record["unavailable"]}', '', '', '', ''])
            continue
        seconds, memory = record['seconds'], record['memory']
        rows.append(
            [
                name + _other_versions(record, environment),
                f'{median(seconds):.3f}',
                f'{min(seconds):.3f} - {max(seconds):.3f}',
                _ratio(_relative(record, reference)),
                f'{memory["peak"] / 2**30:.2f}',
                f'{(memory["peak"] - memory["before"]) / 2**30:.2f}',
            ]
        )
    text = table(['', 'median s', 'min - max s', 'ratio', 'peak memory GiB', 'of it by the steps GiB'], rows)
    exact = [record for record in cell['records'] if 'seconds' in record and record['workload']['precision'] == 'fp32']
    if cell.get('multiply_adds') and cell['part'] == 'inference' and exact:
        fastest = min(exact, key=lambda record: median(record['seconds']))
        rate = 2 * cell['multiply_adds'] * fastest['workload']['batch'] / median(fastest['seconds']) / 1e9
        peak = environment['peak_gflops']
        text += (
            f"\n\nThe fastest fp32 form runs at {rate:.0f} GFLOP/s, {rate / peak:.0%} of this machine's measured "
            f'peak of {peak:.0f} GFLOP/s (the better of a large matrix product and a convolution).'
        )
    return text


def _other_versions(record: dict, environment: dict) -> str:
    """The versions that an entry runs with besides those in the heading."""
    known = environment['versions']
    theirs = (
        {'torchvision', 'transformers', 'timm'}
        if record['workload']['implementation'] in ('transformers', 'authors')
        else set()
    )
    other = [
        f'{name} {version}'
        for name, version in record.get('versions', {}).items()
        if (name in known and known[name] != version) or name in theirs
    ]
    return f' ({", ".join(other)})' if other else ''


def split_table(cells: Iterable[dict]) -> str:
    """Milliseconds by part."""
    rows = []
    for cell in cells:
        for record in cell['records']:
            if 'split' in record:
                parts = {name: median(step[name] for step in record['split']) for name in record['split'][0]}
                total = sum(parts.values())
                workload = record['workload']
                rows.append(
                    [
                        workload['model'],
                        IMPLEMENTATIONS[workload['implementation']],
                        *(f'{1000 * value:.0f} ({value / total:.0%})' for value in parts.values()),
                    ]
                )
                names = list(parts)
    return table(['', '', *(f'{name} ms' for name in names)], rows)


def growth_table(cells: Iterable[dict], part: str) -> str:
    """Seconds and memory of mmdet's and ours as one quantity grows."""
    rows = []
    for cell in cells:
        theirs, ours = cell['records']
        workload = ours['workload']
        size = f'{workload["height"]}x{workload["width"]}' if part == 'sizes' else str(workload['queries'])
        rows.append(
            [
                workload['model'],
                size,
                *(_seconds(r) for r in (theirs, ours)),
                _ratio(_relative(ours, theirs)),
                *(_peak(r) for r in (theirs, ours)),
            ]
        )
    return table(
        [
            '',
            'image' if part == 'sizes' else 'queries',
            'mmdet s',
            'ours s',
            'ratio',
            'mmdet peak GiB',
            'ours peak GiB',
        ],
        rows,
    )


def _seconds(record: dict) -> str:
    return f'{median(record["seconds"]):.3f}' if 'seconds' in record else 'not measured'


def _peak(record: dict) -> str:
    return f'{record["memory"]["peak"] / 2**30:.2f}' if 'memory' in record else 'not measured'


def insert(text: str, results: Iterable[dict], source: str | os.PathLike) -> str:
    """A page with the tables of some runs in its sections: 'benchmark' has the measurements, 'goals' the goals, too.

    'groups' has the training step with groups of queries, 'deployment' and 'deployment-goals' the exported files.

    Args:
        text: of the page, with the markers of one section or of both.
        results: the runs; the section names the kinds of device that have none.
        source: the page's file, for the message.

    Raises:
        UserError: the page has no such section.
    """
    results = list(results)
    missing = dict.fromkeys(kind for kind, _ in GOALS if kind not in {run['environment']['kind'] for run in results})
    # A machine on which exported files or groups alone were measured has no row among the implementations.
    compared = [run for run in results if _compares_implementations(run)]
    nothing = [dict(environment=dict(kind=kind, instruction_sets=()), cells=()) for kind in missing]
    sections = dict(
        benchmark=[f'{_header(run["environment"])}\n\n{ratios_table(run)}' for run in compared]
        + [f'Not measured on a {_DEVICES[kind]} yet.' for kind in missing],
        goals=[f'{_header(run["environment"])}\n\n{goals_table(run)}' for run in compared]
        + [f'Not measured on a {_DEVICES[run["environment"]["kind"]]} yet:\n\n{goals_table(run)}' for run in nothing],
    )
    sections['groups'] = [
        f'{_header(run["environment"])} {_where(cell)}:\n\n{entries_table(cell, run["environment"])}'
        for run in results
        for cell in _cells(run, 'groups')
    ] or ['Not measured yet.']
    sections |= {name: [text] for name, text in deployment.sections(results).items()}
    given = [name for name in sections if BEGIN.format(name) in text] or list(sections)[:1]
    for name in given:
        text = replace_section(text, BEGIN.format(name), END.format(name), '\n\n'.join(sections[name]), source)
    return text


def _ratios(results: dict, model: str) -> tuple[float | None, ...]:
    work = dict(GOAL_WORK[results['environment']['kind']], model=model)
    inference, training = (_work(results, part, work) for part in ('inference', 'training'))
    fast = ('mmcondetr-optimized', 'mmcondetr-compiled')
    step = _find(training, ('mmcondetr',), 'fp32')
    theirs = _find(training, ('mmdet',), 'fp32')
    return (
        _relative(_find(inference, fast, 'fp32'), _find(inference, ('mmdet',), 'fp32')),
        _relative(_find(inference, fast, 'bf16'), _find(inference, ('mmdet',), 'fp32')),
        _relative(step, theirs),
        step['memory']['peak'] / theirs['memory']['peak'] if step and theirs else None,
    )


def _work(results: dict, part: str, work: dict) -> list[dict]:
    """The records of the cell with exactly this work, none where it was not measured."""
    return [
        record
        for cell in _cells(results, part)
        for record in cell['records']
        if work.items() <= record['workload'].items()
    ]


def _find(records: list[dict], implementations: tuple[str, ...], precision: str) -> dict | None:
    found = [
        r
        for r in records
        if r['workload']['implementation'] in implementations
        and 'seconds' in r
        and r['workload']['precision'] == precision
    ]
    return min(found, key=lambda record: median(record['seconds'])) if found else None


def _relative(record: dict | None, reference: dict | None) -> float | None:
    if not record or not reference or 'seconds' not in record or 'seconds' not in reference:
        return None
    return median(record['seconds']) / median(reference['seconds'])


def _verdict(value: float | None, goal: float) -> str:
    return '' if value is None else ', reached' if value <= goal else ', missed'


def _ratio(value: float | None) -> str:
    return 'not measured' if value is None else f'{value:.2f}'


def _compares_implementations(results: dict) -> bool:
    return bool(_cells(results, 'inference') or _cells(results, 'training'))


def _cells(results: dict, part: str) -> list[dict]:
    return [cell for cell in results['cells'] if cell['part'] == part]


def _where(cell: dict) -> str:
    workload = cell['records'][0]['workload']
    return (
        f'{workload["model"]}, {workload["height"]}x{workload["width"]}, batch {workload["batch"]}, '
        f'{workload["queries"]} queries'
    )


def _header(environment: dict) -> str:
    versions = ', '.join(f'{name} {version}' for name, version in environment['versions'].items())
    family = environment.get('cpu_family')
    return (
        f'Measured on {environment["device"]}'
        + (f' family {family} model {environment["cpu_model"]}' if family else '')
        + (f', {environment["threads"]} threads' if environment['kind'] == 'cpu' else '')
        + f' ({", ".join(environment["instruction_sets"])}), Python {environment["python"]}, {versions}.'
    )
