"""Run the quick tests with each supported set of packages, each in a fresh environment.

    python tools/lanes.py                    # every lane, one after the other; up to 8 GB of disk at a time
    python tools/lanes.py oldest onedl       # only these
    python tools/lanes.py --page             # only docs/compatibility.md, from existing results

The last commit is tested. Results: docs/compatibility/<lane>.json, and the table in docs/compatibility.md.
"""

import argparse
import json
from pathlib import Path

from tools.lanes.lanes import LANES
from tools.lanes.page import read_results, updated
from tools.lanes.running import LaneError, run_lane

ROOT = Path(__file__).resolve().parents[2]


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__.split('\n\n')[0], epilog='; '.join(f'{lane.name}: {lane.what}' for lane in LANES.values())
    )
    parser.add_argument('lanes', nargs='*', metavar='LANE', help=f'of {", ".join(LANES)} (default: all)')
    parser.add_argument('--work-dir', default='work_dirs/lanes', help='folder of environments and logs')
    parser.add_argument('--out', default=str(ROOT / 'docs' / 'compatibility'), help='folder of the result files')
    parser.add_argument('--keep', action='store_true', help='keep the environments (up to 8 GB each)')
    parser.add_argument('--reuse', action='store_true', help='install into existing environments (from --keep)')
    parser.add_argument('--limit', type=float, default=7200, help='time limit of each step in seconds (default: 7200)')
    parser.add_argument('--page', action='store_true', help='run nothing; write the table of docs/compatibility.md')
    args = parser.parse_args()
    unknown = [name for name in args.lanes if name not in LANES]
    if unknown:
        parser.error(f'no lane {", ".join(unknown)}; there are {", ".join(LANES)}')
    work, out = Path(args.work_dir), Path(args.out)
    work.mkdir(parents=True, exist_ok=True)
    out.mkdir(parents=True, exist_ok=True)
    good = True
    for name in [] if args.page else args.lanes or LANES:
        print(f'{name}: {LANES[name].what}', flush=True)
        try:
            result = run_lane(LANES[name], ROOT, work, args.keep, args.reuse, args.limit)
        except LaneError as error:
            print(f'  {error}')
            good = False
            continue
        (out / f'{name}.json').write_text(json.dumps(result, indent=1, sort_keys=True) + '\n')
        counts = ', '.join(f'{result[count]} {count}' for count in ('passed', 'failed', 'skipped') if count in result)
        print(f'  {result["outcome"]}: {counts or result.get("step")} (log: {work / name}.log)', flush=True)
        good = good and result['outcome'] == 'passed'
    page = ROOT / 'docs' / 'compatibility.md'
    page.write_text(updated(page.read_text(), read_results(out)))
    return int(not good)
