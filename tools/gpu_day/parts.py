"""The parts of the GPU day, in order: what each runs, and its time limit. Together at most 40 minutes."""

from __future__ import annotations

import os
import sys
from argparse import Namespace
from dataclasses import dataclass, replace
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
START = 'configs/shapes/conditional-detr_r18_small_shapes-start.safetensors'
SYSTEMS = ('detr', 'conditional-detr', 'conditional-detr_6-groups', 'dab-detr', 'deformable-detr')
"""For convergence: the four systems, and Conditional DETR with groups of queries."""


@dataclass(frozen=True)
class Part:
    """One part.

    Attributes:
        name: of the part, its folder and its log.
        what: what it shows.
        limit: seconds after which it is stopped.
        command: the command, with ``{out}`` for its folder.
        longer: whether it also gets the time that earlier parts left of theirs.
    """

    name: str
    what: str
    limit: int
    command: tuple[str, ...]
    longer: bool = False


def parts(args: Namespace) -> list[Part]:
    """All parts for these command line arguments; at tiny sizes and on the CPU for a rehearsal."""
    tiny = args.rehearse
    device = 'cpu' if tiny else 'cuda'
    python = sys.executable
    worker = (python, '-m', 'tools.gpu_day.worker')
    sizes = ('--device', device, *(('--tiny',) if tiny else ()))
    benchmark = (python, 'tools/benchmark.py', '--device', device, '--out', '{out}', '--name', device)
    if tiny:
        benchmark += ('--height', '64', '--width', '64', '--queries', '4', '--repeats', '1', '--models', 'r50')
        benchmark += ('--parts', 'queries', '--growth-queries', '4', '--implementations', 'mmcondetr-optimized')
    convergence = (python, 'tools/convergence.py', '--work-dir', '{out}/runs', '--out', '{out}', '--backbone', START)
    if tiny:
        systems = ('conditional-detr', 'conditional-detr_6-groups', *args.more_systems)
        convergence += ('--systems', *systems, '--seeds', '0', '--epochs', '1', '--base', '{out}/base.py')
    else:
        convergence += ('--systems', *SYSTEMS, *args.more_systems, '--seeds', '0', '1', '--epochs', '12')
        # Such small models leave most of a GPU idle. A run has two processes that load images.
        convergence += ('--jobs', str(max(1, min(5, (os.cpu_count() or 1) // 3))))
    found = [
        Part('cuda-tests', 'the tests that need CUDA', 180, (*worker, 'cuda-tests', '{out}', *sizes)),
        Part('parity', 'CUDA against the CPU, and against mmdet', 240, (*worker, 'parity', '{out}', *sizes)),
        Part('amp', 'training in float16 and bfloat16', 180, (*worker, 'amp', '{out}', *sizes)),
        Part('resume', 'killed and resumed, against an unbroken run', 180, (*worker, 'resume', '{out}', *sizes)),
        Part('benchmark', "the benchmark's cells on the GPU", 540, benchmark),
        Part('compile', 'torch.compile: graphs, agreement, speed', 180, (*worker, 'compile', '{out}', *sizes)),
        Part('convergence', 'two seeds of the systems at small scale', 600, convergence, longer=True),
        Part(
            'overfit',
            'an R50 on 16 images of COCO128',
            300,
            (*worker, 'overfit', '{out}', *sizes, *(('--coco128', args.coco128) if args.coco128 else ())),
        ),
    ]
    return [replace(part, limit=3 * part.limit) for part in found] if tiny else found  # a busy machine may rehearse
