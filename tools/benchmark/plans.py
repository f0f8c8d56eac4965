"""The cells of a benchmark: everything at full size, on a CPU or a GPU, or at toy size to test the tool."""

from __future__ import annotations

from argparse import Namespace
from dataclasses import dataclass, replace

from tools.benchmark.workload import Workload

INFERENCE = ('mmdet', 'transformers', 'authors', 'mmcondetr', 'mmcondetr-optimized')
TRAINING = ('mmdet', 'transformers', 'authors', 'mmcondetr', 'mmcondetr-recomputing')
SPLIT = ('mmdet', 'mmcondetr-optimized')
TRAINING_SPLIT = ('mmdet', 'mmcondetr')
PARTS = ('inference', 'training', 'groups', 'split', 'sizes', 'queries', 'deployment')
GROUPS = ('mmcondetr', 'mmcondetr-11-groups')
EXACT = ('mmdet', 'mmdet-keeping', 'mmcondetr-optimized', 'onnxruntime', 'openvino', 'openvino-int8')
BF16 = ('mmcondetr-optimized', 'openvino', 'openvino-int8')


@dataclass(frozen=True)
class Cell:
    """Entries that are measured in turn and compared.

    Attributes:
        part: one of :data:`PARTS`.
        workloads: one per entry; the first is the reference of the ratios.
        repeats: measured steps.
        warm_up: unmeasured steps before them.
    """

    part: str
    workloads: tuple[Workload, ...]
    repeats: int
    warm_up: int

    @property
    def title(self) -> str:
        """One line for headings and progress."""
        first = self.workloads[0]
        part = 'split of training' if (self.part, first.mode) == ('split', 'training') else self.part
        return f'{part}, {first.model}, {first.height}x{first.width}, {first.queries} queries, batch {first.batch}'


def has_fast_bf16(device: str, cpu_flags: str) -> bool:
    """Whether bf16 is worth measuring: on any GPU, and on a CPU with instructions for it."""
    return device == 'cuda' or 'amx_bf16' in cpu_flags or 'avx512_bf16' in cpu_flags


def plan(args: Namespace, cpu_flags: str) -> list[Cell]:
    """The cells of a run of tools/benchmark.py with these arguments."""
    gpu = args.device == 'cuda'
    base = Workload(
        'mmdet',
        batch=args.batch or (2 if gpu else 1),
        height=args.height,
        width=args.width,
        queries=args.queries,
        device=args.device,
        threads=args.threads,
        authors=args.authors,
    )
    many, few, warm_up = (20, 20, 5) if gpu else (9, 5, 1)
    settle = warm_up if gpu else 2  # on a CPU the first two training steps are slow: memory is taken for the first time
    if args.repeats:
        many = few = args.repeats
    bf16 = has_fast_bf16(args.device, cpu_flags)
    cells = []
    for model in args.models:
        cells += [
            Cell('inference', _inference(replace(base, model=model), bf16, gpu), many, warm_up),
            Cell('training', _training(replace(base, model=model, mode='training'), gpu), few, settle),
            Cell('groups', _each(replace(base, model=model, mode='training'), GROUPS), few, settle),
            Cell('split', _each(replace(base, model=model), SPLIT), few, warm_up),
            Cell('split', _each(replace(base, model=model, mode='training'), TRAINING_SPLIT), few, settle),
        ]
    pair = ('mmdet', 'mmcondetr-optimized')
    first = replace(base, model=args.models[0])
    for height in args.growth_heights:
        growing = replace(first, height=height, width=round(height * args.width / args.height))
        cells.append(Cell('sizes', _each(growing, pair), few, warm_up))
    for queries in args.growth_queries:
        cells.append(Cell('queries', _each(replace(first, queries=queries), pair), few, warm_up))
    for model in args.models if not gpu else ():
        for batch in args.deployment_batches:
            base_of = replace(base, model=model, batch=batch)
            cells.append(Cell('deployment', _deployment(base_of, bf16), many if batch == 1 else few, warm_up))
    chosen = [
        replace(cell, workloads=_chosen(cell.workloads, args.implementations))
        for cell in cells
        if cell.part in args.parts
    ]
    return [cell for cell in chosen if len(cell.workloads) > 1]  # a single one has nothing to compare with


def _each(base: Workload, implementations: tuple[str, ...]) -> tuple[Workload, ...]:
    return tuple(replace(base, implementation=name) for name in implementations)


def _inference(base: Workload, bf16: bool, gpu: bool) -> tuple[Workload, ...]:
    ours = ('mmcondetr-optimized',) + (('mmcondetr-compiled',) if gpu else ())
    workloads = _each(base, INFERENCE) + _each(base, ours[1:])
    if bf16:
        workloads += _each(replace(base, precision='bf16'), ('mmdet', *ours))
    return workloads


def _deployment(base: Workload, bf16: bool) -> tuple[Workload, ...]:
    return _each(base, EXACT) + (_each(replace(base, precision='bf16'), BF16) if bf16 else ())


def _training(base: Workload, gpu: bool) -> tuple[Workload, ...]:
    workloads = _each(base, TRAINING)
    return workloads + (_each(replace(base, precision='bf16'), ('mmdet', 'mmcondetr')) if gpu else ())


def _chosen(workloads: tuple[Workload, ...], implementations: list[str]) -> tuple[Workload, ...]:
    return tuple(w for w in workloads if w.implementation == 'mmdet' or w.implementation in implementations)
