"""Train systems at the size of the small model with the same budget, and report how quickly each learns.

    python tools/convergence.py --systems detr conditional-detr --seeds 0 1 2 --epochs 24 \\
        --backbone configs/shapes/conditional-detr_r18_small_shapes-start.safetensors

From scratch (without --backbone) DETR learns nothing in so small a budget: docs/convergence/README.md.

Finished runs are skipped and interrupted ones resumed, so the command can be killed and run again. --report-only
trains nothing. Writes convergence.json, convergence.md (a table) and convergence.png into --out, after each run.
"""

import argparse
import json
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from statistics import median

import mmcondetr  # noqa: F401  (before anything of mmdet)
from mmcondetr.cli.common import run_guarded
from mmcondetr.engine.config import find_config
from tools.convergence import report, results, runs, timing


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        '--systems',
        nargs='+',
        default=list(runs.MAIN_SYSTEMS),
        metavar='SYSTEM',
        choices=list(runs.SYSTEMS),
        help=f'any of {", ".join(runs.SYSTEMS)} (default: the first four)',
    )
    parser.add_argument('--seeds', nargs='+', type=int, default=[0, 1, 2], help='default: 0 1 2')
    parser.add_argument('--epochs', type=int, default=24, help='budget of every run (default: 24)')
    parser.add_argument(
        '--stop-after',
        type=int,
        metavar='EPOCHS',
        help='train only so many epochs of the budget, with its schedule (default: all); a later call continues',
    )
    parser.add_argument(
        '--target-ap',
        type=float,
        nargs='+',
        default=[0.1, 0.2, 0.3, 0.4],
        metavar='AP',
        help='report the epochs to these APs (default: 0.1 0.2 0.3 0.4)',
    )
    parser.add_argument(
        '--base',
        default=runs.BASE,
        help='config of a small Conditional DETR: data, optimiser and sizes (default: the one for shapes)',
    )
    parser.add_argument(
        '--backbone',
        metavar='CHECKPOINT',
        help='every system starts from the backbone in this checkpoint (default: from scratch)',
    )
    parser.add_argument('--work-dir', type=Path, default=Path('work_dirs/convergence'), help='folder of the runs')
    parser.add_argument('--out', type=Path, help='folder of the report (default: the work directory)')
    parser.add_argument(
        '--reference',
        type=Path,
        metavar='JSON',
        help="convergence.json of another comparison, whose DETR is compared with (default: the work directory's own)",
    )
    parser.add_argument(
        '--earlier',
        type=Path,
        metavar='JSON',
        help='convergence.json of this comparison from another machine: its runs count as trained here',
    )
    parser.add_argument('--jobs', type=int, default=1, help='runs at a time (default: 1)')
    parser.add_argument('--time-steps', action='store_true', help='measure training steps of the systems in turn')
    parser.add_argument('--report-only', action='store_true', help='report the finished runs of the work directory')
    args = parser.parse_args()
    if args.epochs < 1:
        parser.error(f'--epochs: must be at least 1, got {args.epochs}')
    if args.stop_after is not None and not 1 <= args.stop_after <= args.epochs:
        parser.error(f'--stop-after: must be from 1 to the budget, {args.epochs} epochs, got {args.stop_after}')
    if args.jobs < 1:
        parser.error(f'--jobs: must be at least 1, got {args.jobs}')
    if min(args.seeds) < 0:
        parser.error(f'--seeds: must be 0 or more, got {min(args.seeds)}')
    if not all(0 < target < 1 for target in args.target_ap):
        parser.error(f'--target-ap: an AP is between 0 and 1, got {args.target_ap}')
    return args


def compare(args: argparse.Namespace) -> None:
    from mmengine.config import Config

    reference = report.beside(results.read_report(args.reference)['runs']) if args.reference else []
    if args.time_steps:
        base = Config.fromfile(find_config(args.base))
        timed = {system: (system, base) for system in args.systems}
        for run_ in reference:
            timed[run_['system']] = report.REFERENCE, Config.fromfile(find_config(run_['base'].split()[0]))
        seconds = timing.time_steps(timed)
        args.work_dir.mkdir(parents=True, exist_ok=True)
        results.write(args.work_dir / results.STEP_SECONDS, seconds)
        for system, own in seconds.items():
            print(f'{system}: {median(own):.3f} s a step ({min(own):.3f} - {max(own):.3f})')
        return
    asked = []
    if not args.report_only:
        train = Path(__file__).resolve().parents[1] / 'train.py'
        base = Config.fromfile(find_config(args.base))
        backbone = args.backbone and runs.check_backbone(args.backbone, base)
        asked = [runs.comparison(base, args.epochs, backbone)]
    _collect_earlier(args, asked)
    if not args.report_only:

        def run(system: str, seed: int) -> dict:
            print(f'{system}, seed {seed}: {args.work_dir / f"{system}_seed{seed}" / "output.txt"}', flush=True)
            return runs.run_once(system, base, args.epochs, seed, args.work_dir, train, backbone, args.stop_after)

        with ThreadPoolExecutor(args.jobs) as pool:  # each run is a process; a thread waits for it
            # One seed of everything first, so that a killed command leaves a comparison.
            left = [pool.submit(run, system, seed) for seed in args.seeds for system in args.systems]
            try:
                for run_ in as_completed(left):
                    result = run_.result()
                    about = f'{result["system"]}, seed {result["seed"]}'
                    print(f'{about}: AP {result["ap"][-1]:.3f} after {result["steps"][-1]} epochs', flush=True)
                    write_report(args, reference)
            finally:
                pool.shutdown(cancel_futures=True)
    print(write_report(args, reference))
    print(f'wrote convergence.json, .md and .png to {args.out or args.work_dir}')


def write_report(args: argparse.Namespace, reference: list[dict]) -> str:
    """Write the report of all finished runs, beside those of the reference; returns its table."""
    found = results.read_runs(args.work_dir)
    summary = report.summarise(found, args.target_ap, results.step_seconds(args.work_dir), reference)
    out = args.out or args.work_dir
    out.mkdir(parents=True, exist_ok=True)
    (out / 'convergence.json').write_text(json.dumps(dict(summary, runs=found), indent=1) + '\n')
    report.plot([*found, *reference], out / 'convergence.png', args.target_ap)
    (out / 'convergence.md').write_text(report.table(summary) + '\n')
    return report.table(summary)


def _collect_earlier(args: argparse.Namespace, asked: list[dict]) -> None:
    """Check that all runs can be compared, those asked for, too, before hours are spent; then take the earlier ones."""
    earlier = results.read_report(args.earlier) if args.earlier else None
    own = [results.read(path) for path in args.work_dir.glob('*_seed*.json')]
    results.check_comparable([*own, *(earlier['runs'] if earlier else []), *asked])
    if earlier:
        results.adopt(earlier, args.work_dir)


def main() -> int:
    args = parse_args()
    return run_guarded(lambda: compare(args), 'the same command')
