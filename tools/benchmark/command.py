"""Measure this package against mmdet's, Hugging Face's and the authors' Conditional DETR, taking turns in one run.

    python tools/benchmark.py                       # CPU: every cell; about 30 minutes on 2 cores
    python tools/benchmark.py --device cuda         # one GPU
    python tools/benchmark.py --tables README.md docs/{performance,training-faster}.md benchmarks/*.json  # their tables

Writes <name>.json and .md (by default, cpu or cuda) into benchmarks/. Nothing else should run on the machine meanwhile.
"""

import argparse
import json
import os
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

import torch

import mmcondetr  # noqa: F401  (before anything of mmdet)
from mmcondetr.errors import UserError
from tools.benchmark import environment, exporting, report
from tools.benchmark.measuring import BenchmarkError, measure
from tools.benchmark.plans import PARTS, Cell, plan
from tools.benchmark.workload import IMPLEMENTATIONS, OUR_CONFIGS

ROOT = Path(__file__).resolve().parents[2]


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description='Measure implementations of Conditional DETR side by side.')
    parser.add_argument('--device', choices=('cpu', 'cuda'), default='cpu')
    parser.add_argument('--threads', type=int, default=2, help='CPU threads (default: 2)')
    parser.add_argument('--models', nargs='+', choices=list(OUR_CONFIGS), default=list(OUR_CONFIGS))
    parser.add_argument('--parts', nargs='+', choices=PARTS, default=list(PARTS), help='which cells (default: all)')
    parser.add_argument(
        '--implementations',
        nargs='+',
        choices=list(IMPLEMENTATIONS),
        default=list(IMPLEMENTATIONS),
        help='compared with mmdet (default: all that are installed)',
    )
    parser.add_argument('--authors', help="folder of the authors' code (needs torchvision)")
    parser.add_argument('--authors-python', help='interpreter for it, which needs our dependencies, too')
    parser.add_argument('--transformers-python', help='interpreter for transformers, which needs our dependencies, too')
    parser.add_argument('--height', type=int, default=800)
    parser.add_argument('--width', type=int, default=1066)
    parser.add_argument('--queries', type=int, default=300)
    parser.add_argument('--batch', type=int, help='images per step (default: 1 on a CPU, 2 on a GPU)')
    parser.add_argument('--growth-heights', nargs='*', type=int, default=[480, 800, 1333])
    parser.add_argument('--growth-queries', nargs='*', type=int, default=[100, 300, 900])
    parser.add_argument(
        '--deployment-batches', nargs='*', type=int, default=[1, 2, 8], help='images per step of exported entries'
    )
    parser.add_argument('--exported', help='folder for the files of exported entries; existing files are reused')
    parser.add_argument(
        '--repeats',
        type=int,
        help='measured steps of each (default: on a CPU 9 for inference and 5 otherwise, on a GPU 20)',
    )
    parser.add_argument('--name', help='of the files under --out (default: the device)')
    parser.add_argument(
        '--keep',
        action='store_true',
        help='keep the results that the file already has, except those of the cells measured now',
    )
    parser.add_argument('--out', default=str(ROOT / 'benchmarks'), help='folder of the results')
    parser.add_argument(
        '--tables',
        nargs='+',
        metavar='FILE',
        help='measure nothing: write tables from result files (.json) into the sections of pages (.md)',
    )
    args = parser.parse_args()
    if args.device == 'cuda' and not torch.cuda.is_available():
        parser.error('--device cuda: torch sees no GPU here')
    if args.threads < 1:
        parser.error(f'--threads: must be at least 1, got {args.threads}')
    if args.repeats is not None and args.repeats < 1:
        parser.error(f'--repeats: must be at least 1, got {args.repeats}')
    return args


def run(args: argparse.Namespace, file: Path) -> dict:
    pythons = {
        name: python
        for name, python in (('authors', args.authors_python), ('transformers', args.transformers_python))
        if python
    }
    results = dict(environment=environment.describe(args.device, args.threads), cells=[])
    if args.keep and file.exists():
        results['cells'], peak = cells_of_the_same_machine(file, results['environment'])
        results['environment']['peak_gflops'] = max(peak, results['environment']['peak_gflops'])
    cells = plan(args, environment.cpu_flags())
    with ExitStack() as stack:
        folder = args.exported or stack.enter_context(tempfile.TemporaryDirectory())
        Path(folder).mkdir(parents=True, exist_ok=True)
        _measure(exporting.with_files(cells, Path(folder)), pythons, results, file)
    return results


def _measure(cells: list[Cell], pythons: dict[str, str], results: dict, file: Path) -> None:
    for number, cell in enumerate(cells, start=1):
        print(f'[{number}/{len(cells)}] {cell.title}', flush=True)
        load = os.getloadavg()[0]
        records = measure(cell.workloads, cell.repeats, cell.warm_up, cell.part == 'split', pythons)
        for record in records:
            del record['workload']['file']  # a path on this machine, possibly temporary
        done = dict(
            title=cell.title, part=cell.part, multiply_adds=multiply_adds(cell), load=round(load, 1), records=records
        )
        titles = [other.get('title') for other in results['cells']]
        place = titles.index(cell.title) if cell.title in titles else len(titles)
        results['cells'][place : place + 1] = [done]
        file.write_text(json.dumps(results, indent=1) + '\n')  # after every cell: an interruption loses one at most


def cells_of_the_same_machine(file: Path, here: dict) -> tuple[list[dict], float]:
    """The cells in a file, and the peak that was measured with them.

    Raises:
        ValueError: they were measured on another machine, or with other versions.
    """
    before = json.loads(file.read_text())
    for field in ('device', 'cpu_family', 'cpu_model', 'kind', 'threads', 'instruction_sets', 'python', 'versions'):
        if before['environment'].get(field) != here.get(field):
            raise ValueError(
                f"--keep: '{file}': environment.{field} is {before['environment'].get(field)}, but here it is "
                f'{here.get(field)}: the measurements cannot be compared.'
            )
    return before['cells'], before['environment']['peak_gflops']


def multiply_adds(cell: Cell) -> int:
    """Multiply-adds per image, counted on our model."""
    from mmengine import Config

    from mmcondetr.engine.config import find_config
    from tools.model_zoo.complexity import build_on_meta, count_multiply_adds

    first = cell.workloads[0]
    config = Config.fromfile(find_config(OUR_CONFIGS[first.model]))
    config.model.num_queries = first.queries
    return count_multiply_adds(build_on_meta(config), (first.width, first.height))


def write(results: dict, file: Path) -> None:
    title = f'# Benchmark: {file.stem}\n\nWritten by `tools/benchmark.py` from `{file.name}`.\n\n'
    file.with_suffix('.md').write_text(title + report.markdown(results))
    print(title + report.markdown(results))


def main() -> int:
    args = parse_args()
    try:
        if args.tables:
            results = [json.loads(Path(file).read_text()) for file in args.tables if file.endswith('.json')]
            for page in (Path(file) for file in args.tables if not file.endswith('.json')):
                page.write_text(report.insert(page.read_text(), results, page))
        else:
            start = time.time()
            file = Path(args.out) / f'{args.name or args.device}.json'
            file.parent.mkdir(parents=True, exist_ok=True)
            write(run(args, file), file)
            print(f'took {(time.time() - start) / 60:.1f} minutes')
    except (BenchmarkError, UserError, ValueError, OSError) as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print('interrupted: the same command with --keep continues', file=sys.stderr)
        return 130
    return 0
