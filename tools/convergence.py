"""Train systems at the size of the small model with the same budget, and report how soon each learns.

    python tools/convergence.py --systems detr conditional-detr --seeds 0 1 2 --epochs 24 \\
        --backbone configs/shapes/conditional-detr_r18_small_shapes-start.safetensors

From nothing (without --backbone) DETR learns nothing in so short a budget: docs/convergence/README.md.

Finished runs are skipped and interrupted ones go on, so that the command can be killed and given again. --report-only
trains nothing. Writes convergence.json, convergence.md (a table) and convergence.png into --out.
"""

import argparse
import json
import sys
from pathlib import Path

import mmcondetr  # noqa: F401  (before anything of mmdet)
from mmcondetr import convergence, convergence_report
from mmcondetr.engine.cli import run
from mmcondetr.engine.config import find_config


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--systems', nargs='+', default=list(convergence.MAIN_SYSTEMS), metavar='SYSTEM',
                        choices=list(convergence.SYSTEMS),
                        help=f'of {", ".join(convergence.SYSTEMS)} (default: the first four)')
    parser.add_argument('--seeds', nargs='+', type=int, default=[0, 1, 2], help='default: 0 1 2')
    parser.add_argument('--epochs', type=int, default=24, help='budget of every run (default: 24)')
    parser.add_argument('--target-ap', type=float, nargs='+', default=[0.1, 0.2, 0.3, 0.4], metavar='AP',
                        help='report the epochs to these APs (default: 0.1 0.2 0.3 0.4)')
    parser.add_argument('--base', default=convergence.BASE,
                        help='config of a small Conditional DETR: data, optimiser and sizes (default: that for shapes)')
    parser.add_argument('--backbone', metavar='CHECKPOINT',
                        help='every system starts from the backbone in this checkpoint (default: from nothing)')
    parser.add_argument('--work-dir', type=Path, default=Path('work_dirs/convergence'), help='where runs are kept')
    parser.add_argument('--out', type=Path, help='where the report goes (default: the work directory)')
    parser.add_argument('--report-only', action='store_true', help='report the finished runs of the work directory')
    args = parser.parse_args()
    if args.epochs < 1:
        parser.error(f'--epochs: must be at least 1, got {args.epochs}')
    if min(args.seeds) < 0:
        parser.error(f'--seeds: must be 0 or more, got {min(args.seeds)}')
    if not all(0 < target < 1 for target in args.target_ap):
        parser.error(f'--target-ap: an AP is between 0 and 1, got {args.target_ap}')
    return args


def main() -> None:
    from mmengine.config import Config

    args = parse_args()
    if not args.report_only:
        train = Path(__file__).resolve().with_name('train.py')
        base = Config.fromfile(find_config(args.base))
        backbone = args.backbone and convergence.check_backbone(args.backbone, base)
        for seed in args.seeds:  # one seed of everything first, so that a killed command leaves a comparison
            for system in args.systems:
                print(f'{system}, seed {seed}: {args.work_dir / f"{system}_seed{seed}" / "output.txt"}', flush=True)
                found = convergence.run_once(system, base, args.epochs, seed, args.work_dir, train, backbone)
                print(f'{system}, seed {seed}: AP {found["ap"][-1]:.3f} after {args.epochs} epochs', flush=True)
    runs = convergence.read_runs(args.work_dir)
    report = convergence_report.summarise(runs, args.target_ap)
    out = args.out or args.work_dir
    out.mkdir(parents=True, exist_ok=True)
    (out / 'convergence.json').write_text(json.dumps(dict(report, runs=runs), indent=1) + '\n')
    convergence_report.plot(runs, out / 'convergence.png', args.target_ap)
    (out / 'convergence.md').write_text(convergence_report.table(report) + '\n')
    print(convergence_report.table(report))
    print(f'wrote convergence.json, .md and .png to {out}')


if __name__ == '__main__':
    sys.exit(run(main, go_on='the same command'))
