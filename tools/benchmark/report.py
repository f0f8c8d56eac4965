"""From records to Markdown: the table of goals, the table of contestants, the split by part, the growth."""

from __future__ import annotations

from collections.abc import Iterable
from statistics import median

from tools.benchmark.workload import IMPLEMENTATIONS

#: The project's goals, ratios to mmdet's: inference fp32, inference bf16, training step fp32, peak memory in training.
GOALS = {
    ('cpu', 'r50'): (0.50, 0.15, 0.80, 0.85),
    ('cpu', 'r50-dc5'): (0.38, 0.13, 0.60, 0.50),
    ('cuda', 'r50'): (0.50, 0.40, 0.50, 0.60),
    ('cuda', 'r50-dc5'): (0.40, 0.30, 0.40, 0.35),
}
#: What they are for: images of 800 x 1066, 300 queries, one image on a CPU and two on a GPU.
GOAL_WORK = dict(
    cpu=dict(height=800, width=1066, queries=300, batch=1), cuda=dict(height=800, width=1066, queries=300, batch=2)
)
COLUMNS = ('inference fp32', 'inference bf16', 'training step fp32', 'peak memory, training')
BEGIN, END = '<!-- benchmark: begin -->', '<!-- benchmark: end -->'


def markdown(results: dict) -> str:
    """The whole report of one run."""
    blocks = [_header(results['environment']), '## Goals', goals_table(results)]
    for part, heading in (('inference', 'Inference'), ('training', 'Training step')):
        for cell in _cells(results, part):
            blocks += [f'## {heading}: {_where(cell)}', contestants_table(cell, results['environment'])]
    for mode, heading in (('inference', 'an inference'), ('training', 'a training step')):
        split = [cell for cell in _cells(results, 'split') if cell['records'][0]['workload']['mode'] == mode]
        if split:
            blocks += [f'## Where the time of {heading} goes', split_table(split)]
    for part, heading in (('sizes', 'Growth with the image'), ('queries', 'Growth with the number of queries')):
        if _cells(results, part):
            blocks += [f'## {heading}', growth_table(_cells(results, part), part)]
    return '\n\n'.join(blocks) + '\n'


def goals_table(results: dict) -> str:
    """Each goal, and what was measured of its work: ratios to mmdet's fp32 in the same run."""
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
    return _table(['ratio to mmdet', *COLUMNS], rows)


def contestants_table(cell: dict, environment: dict) -> str:
    """Every contestant of one cell: median, spread, ratio, memory."""
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
    text = _table(['', 'median s', 'min - max s', 'ratio', 'peak memory GiB', 'of it by the steps GiB'], rows)
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
    """What a contestant runs with besides the versions in the heading."""
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
    return _table(['', '', *(f'{name} ms' for name in names)], rows)


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
    return _table(
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


def insert(text: str, results: Iterable[dict]) -> str:
    """``text`` with the tables of goals of some runs between its two markers; kinds of device without a run say so.

    Raises:
        ValueError: if the markers are not there.
    """
    if BEGIN not in text or END not in text:
        raise ValueError(f'the markers {BEGIN} and {END} must both be in the text')
    results = list(results)
    blocks = [_header(result['environment']) + '\n\n' + goals_table(result) for result in results]
    for kind in dict.fromkeys(kind for kind, _ in GOALS):
        if kind not in {result['environment']['kind'] for result in results}:
            nothing = dict(environment=dict(kind=kind, instruction_sets=()), cells=())
            blocks.append(f'No run with `--device {kind}` yet.\n\n{goals_table(nothing)}')
    before, _, rest = text.partition(BEGIN)
    return f'{before}{BEGIN}\n' + '\n\n'.join(blocks) + f'\n{END}{rest.partition(END)[2]}'


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
    return (
        f'Measured on {environment["device"]}'
        + (f', {environment["threads"]} threads' if environment['kind'] == 'cpu' else '')
        + f' ({", ".join(environment["instruction_sets"])}), Python {environment["python"]}, {versions}.'
    )


def _table(heading: list[str], rows: list[list[str]]) -> str:
    lines = [heading, ['---'] * len(heading), *rows]
    return '\n'.join('| ' + ' | '.join(line) + ' |' for line in lines)
