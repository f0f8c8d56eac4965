"""Attack the package from outside, seeded, and count what breaks.

    make torture                                                     # everything, 40 minutes on two cores
    python tools/torture.py --parts annotations images --minutes 2   # some of it
    python tools/torture.py --parts resuming --attempt 'meta'        # the attempts whose name holds that, with output
    python tools/torture.py --page                                   # docs/reliability.md from the last results

Linux only: each attempt is a forked process with limits. As root it also tries full and read-only file systems. Traffic
goes to this machine alone. Writes docs/reliability.json and docs/reliability.md; exits with 1 where a goal is not met.
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
from collections.abc import Callable, Iterator
from datetime import datetime, timezone
from math import inf
from pathlib import Path

from tools.torture.attempts import OUTCOMES, Attempt, Result, carry_out
from tools.torture.page import WHOLE_RUN, goals, page

ROOT = Path(__file__).resolve().parents[2]
SHARES = dict(
    **dict(annotations=1, images=2, corruptions=2, payloads=5, resuming=5, settings=6, downloads=4, nonfinite=3),
    **dict(kills=5, disk=2, processes=3, soak=4),
)
"""Parts, in order, and what share of the time each may take."""

SOAK_STEPS = 5000


def find_attacks(name: str) -> Callable[..., Iterator[Attempt]]:
    """The function that yields a part's attempts."""
    from tools.torture import attacks_data, attacks_downloads, attacks_files, attacks_processes, attacks_settings

    for module in (attacks_data, attacks_files, attacks_settings, attacks_downloads, attacks_processes):
        if hasattr(module, name):
            return getattr(module, name)
    raise KeyError(name)


def run_part(
    attempts: Iterator[Attempt], seconds: float, most: int | None, canary: Path, show: str = ''
) -> list[Result]:
    """Carry out attempts, at least one, until the time or the number is used up; ``show`` chooses by name."""
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
    """Counts, and what went wrong, each kind once."""
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


def environment(seed: int, minutes: float) -> dict:
    """What the numbers are of."""
    commit = subprocess.run(['git', 'rev-parse', 'HEAD'], cwd=ROOT, capture_output=True, text=True).stdout.strip()
    names = ('torch', 'mmdet', 'mmengine', 'mmcv-lite', 'numpy')
    installed = {distribution.metadata['Name'] for distribution in importlib.metadata.distributions()}
    return dict(
        seed=seed,
        minutes=minutes,
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
    parser.add_argument('--most', type=int, help='attempts of each part at most')
    parser.add_argument('--seed', type=int, default=0)
    parser.add_argument('--soak-steps', type=int, default=SOAK_STEPS, help=f'default: {SOAK_STEPS}')
    parser.add_argument('--attempt', default='', metavar='TEXT', help='only attempts whose name holds this, printed')
    parser.add_argument('--out', type=Path, default=ROOT / 'docs' / 'reliability.json')
    parser.add_argument('--keep', action='store_true', help='keep the results of parts that are not run now')
    parser.add_argument('--page', action='store_true', help='run nothing; write the page from the results')
    return parser.parse_args()


def attack(args: argparse.Namespace, folder: Path) -> dict:
    """Run the chosen parts under ``folder``; the result file is rewritten after each."""
    from tools.torture.attacks_processes import soak_attempts
    from tools.torture.ground import prepare, prepare_imports

    results = json.loads(args.out.read_text()) if args.keep and args.out.exists() else dict(parts={})
    prepare_imports()
    ground = prepare(folder)
    whole = sum(SHARES[name] for name in args.parts)
    for name in args.parts:
        seconds, started = 60 * args.minutes * SHARES[name] / whole, time.monotonic()
        choice = random.Random(f'{args.seed} {name}')
        attempts = soak_attempts(ground, args.soak_steps) if name == 'soak' else find_attacks(name)(ground, choice)
        most = None if name == 'soak' else args.most
        found = run_part(attempts, inf if name == 'soak' else seconds, most, ground.canary, args.attempt)
        part = summarise(found, time.monotonic() - started)
        if name == 'soak':
            part['figures'] = [result.detail for result in found]
        results['parts'][name] = dict(part, environment=environment(args.seed, args.minutes))
        args.out.write_text(json.dumps(results, indent=1) + '\n')
        counts = ', '.join(f'{count} {outcome}' for outcome, count in part['counts'].items() if count)
        print(f'{name}: {part["tried"]} tried in {part["seconds"]} s: {counts}', flush=True)
        for kind in part['wrong']:
            print(f'    {kind["outcome"]} x{kind["times"]}: {kind["example"]}: {kind["detail"][:160]}', flush=True)
    return results


def main() -> int:
    args = parse_args()
    if args.page:
        results = json.loads(args.out.read_text())
    else:
        with tempfile.TemporaryDirectory(prefix='torture-', ignore_cleanup_errors=True) as folder:
            results = attack(args, Path(folder))
    args.out.with_suffix('.md').write_text(page(results))
    missed = [goal for goal, _, met in goals(results) if not met]
    print(f'goals not met: {"; ".join(missed)}' if missed else 'every goal is met')
    return int(bool(missed))
