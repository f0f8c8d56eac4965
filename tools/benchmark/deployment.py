"""Tables comparing exported files with their source models: seconds, ratios, goals, throughput, memory."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from statistics import median

from mmcondetr.markdown import table
from tools.benchmark.workload import EXPORTED, IMPLEMENTATIONS, OUR_CONFIGS

#: Goals at 800 x 1066, one image, as ratios to unmodified mmdet in fp32: form -> r50, r50-dc5 (None: no goal).
GOALS = dict(fp32=(0.40, 0.27), bf16=(0.20, 0.15), int8=(0.14, None))
#: The largest ratio of our eager model's time to OpenVINO's, both in bf16.
EAGER_GOAL = 1.3
_NAMES = {
    **IMPLEMENTATIONS,
    'mmdet': "mmdet's model",
    'mmdet-keeping': "mmdet's model, freed memory kept",
    'mmcondetr-optimized': 'ours in PyTorch, optimised',
}
NOTHING = 'Not measured yet.'


def has_cells(results: dict) -> bool:
    """Whether exported files were measured in a run."""
    return any(cell['part'] == 'deployment' for cell in results['cells'])


def seconds_table(results: dict) -> str:
    """Seconds per image by entry and model, and ratios to mmdet's, unmodified and with freed memory kept."""
    measured = {model: _records(results, model, 1) for model in OUR_CONFIGS}
    measured = {model: records for model, records in measured.items() if records}
    rows = []
    for key in dict.fromkeys(key for records in measured.values() for key in records):
        row = [_title(key)]
        for records in measured.values():
            seconds = records.get(key, {}).get('seconds')
            if not seconds:
                row += ['not measured', '', '']
                continue
            row.append(f'{median(seconds):.3f} ({min(seconds):.3f} - {max(seconds):.3f})')
            row += [f'{_ratio(records, key, (name, "fp32")):.2f}' for name in ('mmdet', 'mmdet-keeping')]
        rows.append(row)
    heads = [head for model in measured for head in (f'{model}, s', 'ratio to mmdet', 'ratio, freed memory kept')]
    return table(['one image', *heads], rows)


def goals_table(results: dict) -> str:
    """Each goal with the fastest of our forms that it applies to."""
    rows = []
    for form, goals in GOALS.items():
        row = [f'{form}, fastest form']
        for model, goal in zip(OUR_CONFIGS, goals):
            records = _records(results, model, 1)
            wanted = [key for key in records if _form(key) == form and 'seconds' in records[key]]
            best = min(wanted, key=lambda key: median(records[key]['seconds']), default=None)
            if best is None:
                row.append('not measured')
                continue
            row.append(_verdict(_ratio(records, best, ('mmdet', 'fp32')), goal) + f': {_title(best)}')
        rows.append(row)
    row = ["bf16, ours in PyTorch to OpenVINO's"]
    for model in OUR_CONFIGS:
        records = _records(results, model, 1)
        pair = ('mmcondetr-optimized', 'bf16'), ('openvino', 'bf16')
        known = all('seconds' in records.get(key, {}) for key in pair)
        row.append(_verdict(_ratio(records, *pair), EAGER_GOAL) if known else 'not measured')
    return table(['ratio', *OUR_CONFIGS], [*rows, row])


def throughput_table(results: dict) -> str:
    """Images per second and peak memory of the process by batch size."""
    parts = [_throughput(results, model) for model in OUR_CONFIGS]
    return '\n\n'.join(part for part in parts if part)


def _throughput(results: dict, model: str) -> str:
    batches = sorted({cell['records'][0]['workload']['batch'] for cell in _cells(results, model)})
    measured = [_records(results, model, batch) for batch in batches]
    rows = []
    for key in dict.fromkeys(key for records in measured for key in records):
        rates = [
            _cell(records.get(key), lambda r: f'{r["workload"]["batch"] / median(r["seconds"]):.2f}')
            for records in measured
        ]
        peaks = [_cell(records.get(key), lambda r: f'{r["memory"]["peak"] / 2**30:.2f}') for records in measured]
        rows.append([_title(key), *rates, *peaks])
    heads = [f'batch {batch}, images/s' for batch in batches] + [f'batch {batch}, peak GiB' for batch in batches]
    return table([model, *heads], rows) if rows else ''


def load_note(results: dict) -> str:
    """The runtimes' versions, and the load average before each cell, which includes the threads of the cell before."""
    loads = [cell['load'] for cell in results['cells'] if cell['part'] == 'deployment' and 'load' in cell]
    versions = next(
        (
            r['versions']
            for cell in _cells(results)
            for r in cell['records']
            if r['workload']['implementation'] in EXPORTED and r.get('versions')
        ),
        {},
    )
    named = ', '.join(f'{name} {version}' for name, version in versions.items())
    span = f'{min(loads):.1f} - {max(loads):.1f}' if loads else 'unknown'
    own = results['environment']['threads'] + 0.5
    busy = ' Other work ran beside it: compare within this table only.' if max(loads, default=0) > own else ''
    return f'Exported files: {named or "none"}. Load average of the machine before a cell: {span}.{busy}'


def _cell(record: dict | None, show: Callable[[dict], str]) -> str:
    return show(record) if record and 'seconds' in record else 'not measured'


def _cells(results: dict, model: str | None = None) -> list[dict]:
    return [
        cell
        for cell in results['cells']
        if cell['part'] == 'deployment' and model in (None, cell['records'][0]['workload']['model'])
    ]


def _records(results: dict, model: str, batch: int) -> dict[tuple[str, str], dict]:
    """(implementation, precision) -> record, at the size that the goals are for."""
    return {
        (record['workload']['implementation'], record['workload']['precision']): record
        for cell in _cells(results, model)
        for record in cell['records']
        if dict(batch=batch, height=800, width=1066, queries=300).items() <= record['workload'].items()
    }


def _form(key: tuple[str, str]) -> str:
    implementation, precision = key
    if implementation.startswith('mmdet'):
        return 'theirs'
    return 'int8' if implementation.endswith('int8') else precision


def _title(key: tuple[str, str]) -> str:
    implementation, precision = key
    rest = ', the rest in ' if implementation.endswith('int8') else ', '
    return f'{_NAMES[implementation]}{rest}{precision}'


def _ratio(records: dict, key: tuple[str, str], reference: tuple[str, str]) -> float:
    if 'seconds' not in records.get(reference, {}):
        return float('nan')
    return median(records[key]['seconds']) / median(records[reference]['seconds'])


def _verdict(value: float, goal: float | None) -> str:
    if goal is None:
        return f'{value:.2f} (no goal)'
    return f'{value:.2f} (goal <= {goal:.2f}, {"reached" if value <= goal else "missed"})'


def sections(runs: Iterable[dict]) -> dict[str, str]:
    """The text between the markers 'deployment' (in the README) and 'deployment-goals' of a page."""
    runs = [run for run in runs if has_cells(run)]
    return {
        'deployment': '\n\n'.join(f'{seconds_table(run)}\n\n{load_note(run)}' for run in runs) or NOTHING,
        'deployment-goals': '\n\n'.join(
            '\n\n'.join((seconds_table(run), load_note(run), goals_table(run), throughput_table(run))) for run in runs
        )
        or NOTHING,
    }
