"""Attack the package from outside, seeded, and count what breaks.

    make torture                                                     # everything, 40 minutes on two cores
    python tools/torture.py --parts annotations images --minutes 2   # some of it
    python tools/torture.py --parts resuming --attempt 'meta'        # attempts whose name contains that, with output
    python tools/torture.py --page                                   # docs/reliability.md from the last results

Linux only: each attempt is a forked process with limits. As root it also tries full and read-only file systems. Traffic
goes to this machine only. Writes docs/reliability.json and docs/reliability.md, for a part of it work_dirs/torture.json
and .md; exits with 1 if a goal is not met. Goals about parts that were not run are not judged.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import platform
import random
import subprocess
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from datetime import datetime, timezone
from math import inf
from pathlib import Path
from typing import TYPE_CHECKING

from tools.torture.attempts import OUTCOMES, Attempt, Result, carry_out
from tools.torture.page import WHOLE_RUN, goals, page

if TYPE_CHECKING:
    from tools.torture.ground import Ground

ROOT = Path(__file__).resolve().parents[2]
SHARES = dict(
    **dict(soak=10, downloads=6, processes=8, payloads=12, annotations=3, images=3, corruptions=5, folders=4),
    **dict(resuming=9, settings=10, nonfinite=4, kills=14, disk=4),
)
"""Parts, in order, and their shares of the time. Those that end by themselves come first and leave time to the rest."""

JOBS = 2

SOAK_STEPS = 5000


def find_attacks(name: str) -> Callable[..., Iterator[Attempt]]:
    """The function that yields a part's attempts."""
    from tools.torture import (
        attacks_data,
        attacks_downloads,
        attacks_files,
        attacks_folders,
        attacks_processes,
        attacks_settings,
    )

    modules = (attacks_data, attacks_files, attacks_folders, attacks_settings, attacks_downloads, attacks_processes)
    for module in modules:
        if hasattr(module, name):
            return getattr(module, name)
    raise KeyError(name)


def run_part(
    attempts: Iterator[Attempt], seconds: float, most: int | None, canary: Path, show: str = ''
) -> list[Result]:
    """Run attempts, at least one, until the time or the number is used up; ``show`` selects by name."""
    results, end = [], time.monotonic() + seconds
    for attempt in attempts:
        if show in attempt.name:
            results.append(carry_out(attempt, canary))
            if show:
                print(f'  {results[-1]}', flush=True)
        if time.monotonic() > end or (most is not None and len(results) >= most):
            break
    return results


def summarise(results: list[Result], seconds: float) -> dict:
    """Counts, and one example of each kind of failure."""
    counts = {outcome: sum(result.outcome == outcome for result in results) for outcome in OUTCOMES}
    wrong = [result for result in results if result.outcome not in ('survived', 'clear error')]
    kinds: dict[tuple, dict] = {}
    for result in wrong:
        key = (result.outcome, result.detail[:60])
        kinds.setdefault(key, dict(outcome=result.outcome, example=result.name, detail=result.detail, times=0))
        kinds[key]['times'] += 1
    found = sorted(kinds.values(), key=lambda kind: -kind['times'])
    notes = [result.detail for result in results if result.detail.startswith(('no file system',))]
    return dict(tried=len(results), seconds=round(seconds), counts=counts, wrong=found[:40], not_tried=len(notes))


def _seeds(part: dict) -> list[str]:
    return str(part['environment']['seed']).split(', ')


def can_join(before: dict, part: dict) -> bool:
    """Whether two results of a part are of the same code and versions, and of other attempts."""
    if not before or set(_seeds(before)) & set(_seeds(part)):
        return False
    first, second = (
        {name: value for name, value in each['environment'].items() if name in ('commit', 'machine', 'versions')}
        for each in (before, part)
    )
    return first == second


def join(before: dict, part: dict) -> dict:
    """Two results of a part as one."""
    first, second = before['environment'], part['environment']
    about = dict(second, seed=', '.join(_seeds(before) + _seeds(part)), minutes=first['minutes'] + second['minutes'])
    sums = {name: before[name] + part[name] for name in ('tried', 'seconds', 'wrong', 'not_tried')}
    counts = {outcome: before['counts'][outcome] + count for outcome, count in part['counts'].items()}
    return {**before, **sums, 'counts': counts, 'environment': about | dict(load=max(first['load'], second['load']))}


def environment(seed: int, minutes: float, jobs: int) -> dict:
    """The machine and versions of the run."""
    commit = subprocess.run(['git', 'rev-parse', 'HEAD'], cwd=ROOT, capture_output=True, text=True).stdout.strip()
    names = ('torch', 'mmdet', 'mmengine', 'mmcv-lite', 'numpy')
    installed = {distribution.metadata['Name'] for distribution in importlib.metadata.distributions()}
    return dict(
        seed=seed,
        minutes=minutes,
        jobs=jobs,
        commit=commit or None,
        date=f'{datetime.now(timezone.utc):%Y-%m-%d}',
        machine=f'{platform.system()} {platform.machine()}, {os.cpu_count()} cores',
        python=platform.python_version(),
        versions={name: importlib.metadata.version(name) for name in names if name in installed},
        load=round(os.getloadavg()[0], 1),
    )


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--parts', nargs='+', choices=list(SHARES), default=list(SHARES), help='default: all')
    parser.add_argument(
        '--minutes', type=float, default=WHOLE_RUN, help=f'for all parts together (default: {WHOLE_RUN})'
    )
    parser.add_argument('--jobs', type=int, default=JOBS, help=f'parts at a time (default: {JOBS})')
    parser.add_argument('--most', type=int, help='maximum number of attempts per part')
    parser.add_argument('--seed', type=int, default=0)
    parser.add_argument('--soak-steps', type=int, default=SOAK_STEPS, help=f'default: {SOAK_STEPS}')
    parser.add_argument(
        '--attempt', default='', metavar='TEXT', help='only attempts whose name contains this, with output'
    )
    parser.add_argument(
        '--out', type=Path, help='default: docs/reliability.json; with --parts or --attempt work_dirs/torture.json'
    )
    parser.add_argument('--keep', action='store_true', help='keep the results of parts that are not run now')
    parser.add_argument(
        '--more', action='store_true', help='as --keep, and add to the results that parts have of this commit'
    )
    parser.add_argument('--page', action='store_true', help='run nothing; write the page from the results')
    args = parser.parse_args()
    if args.out is None:  # the published results are those of a whole run, or of --keep
        some = (len(args.parts) < len(SHARES) or args.attempt) and not (args.keep or args.more)
        args.out = ROOT / ('work_dirs/torture.json' if some else 'docs/reliability.json')
    args.out.parent.mkdir(parents=True, exist_ok=True)
    return args


def divide(parts: list[str], jobs: int) -> list[list[str]]:
    """The parts of each job, in order, divided so that all jobs take about equally long."""
    found: list[list[str]] = [[] for _ in range(min(jobs, len(parts)))]
    for name in sorted(parts, key=lambda part: -SHARES[part]):
        min(found, key=lambda job: sum(SHARES[part] for part in job)).append(name)
    return [[name for name in SHARES if name in job] for job in found]


def attack(args: argparse.Namespace, folder: Path) -> dict:
    """Run the chosen parts under ``folder``, several at a time; the result file is rewritten after each."""
    from tools.torture.ground import prepare_imports

    keep = (args.keep or args.more) and args.out.exists()
    results = json.loads(args.out.read_text()) if keep else dict(parts={})
    prepare_imports()
    jobs = {}
    for number, parts in enumerate(divide(args.parts, args.jobs)):
        found = folder / f'{number}.json'
        process = os.fork()
        if process == 0:
            os._exit(_job(args, parts, folder / str(number), found))
        jobs[process] = found
    while jobs:
        process, status = os.wait()
        found = jobs.pop(process)
        if status or not found.exists():
            raise SystemExit(f'a job failed: {found}')
        for name, part in json.loads(found.read_text()).items():
            before = results['parts'].get(name, {})
            if args.more and can_join(before, part):
                results['parts'][name] = join(before, part)
                continue
            part['before'] = before.get('before', []) + before.get('wrong', [])
            if 'note' in before:
                part['note'] = before['note']
            results['parts'][name] = part
        results['parts'] = {name: results['parts'][name] for name in SHARES if name in results['parts']}
        args.out.write_text(json.dumps(results, indent=1) + '\n')
    return results


def _job(args: argparse.Namespace, parts: list[str], folder: Path, out: Path) -> int:
    """Run parts one after the other; returns the exit code of this process."""
    from tools.torture.ground import prepare

    try:
        started, done = time.monotonic(), {}
        ground = prepare(folder)
        for index, name in enumerate(parts):
            left = 60 * args.minutes - (time.monotonic() - started)
            done[name] = _part(args, name, ground, left * SHARES[name] / sum(SHARES[part] for part in parts[index:]))
            out.write_text(json.dumps(done))
    except BaseException:
        traceback.print_exc()
        return 1
    return 0


def _part(args: argparse.Namespace, name: str, ground: Ground, seconds: float) -> dict:
    """Run one part; returns its entry in the result file."""
    from tools.torture.attacks_processes import soak_attempts

    started, before = time.monotonic(), os.getloadavg()[0]
    choice = random.Random(f'{args.seed} {name}')
    attempts = soak_attempts(ground, args.soak_steps) if name == 'soak' else find_attacks(name)(ground, choice)
    most = None if name == 'soak' else args.most
    found = run_part(attempts, inf if name == 'soak' else seconds, most, ground.canary, args.attempt)
    part = summarise(found, time.monotonic() - started)
    if name == 'soak':
        part['figures'] = [result.detail for result in found]
    text = [f'{name}: {part["tried"]} tried in {part["seconds"]} s: ']
    text[0] += ', '.join(f'{count} {outcome}' for outcome, count in part['counts'].items() if count)
    for kind in part['wrong']:
        text.append(f'    {kind["outcome"]} x{kind["times"]}: {kind["example"]}: {kind["detail"][:160]}')
    print('\n'.join(text), flush=True)
    about = environment(args.seed, args.minutes, args.jobs)
    return dict(part, environment=about | dict(load=max(about['load'], round(before, 1))))


def main() -> int:
    args = parse_args()
    if args.page:
        results = json.loads(args.out.read_text())
    else:
        with tempfile.TemporaryDirectory(prefix='torture-', ignore_cleanup_errors=True) as folder:
            results = attack(args, Path(folder))
    args.out.with_suffix('.md').write_text(page(results))
    print(verdict(results))
    return int(any(met is False for _, _, met in goals(results)))


def verdict(results: dict) -> str:
    """Which goals are not met; those about parts that were not run are not judged."""
    found = goals(results)
    missed = [goal for goal, _, met in found if met is False]
    absent = [name for name in SHARES if name not in results['parts']]
    if not absent:
        return f'goals not met: {"; ".join(missed)}' if missed else 'every goal is met'
    text = f'goals not met: {"; ".join(missed)}' if missed else 'no goal is missed by the parts that were run'
    open_goals = sum(met is None for _, _, met in found)
    return f'{text}; {open_goals} of {len(found)} goals are not judged, as parts were not run: {", ".join(absent)}'
