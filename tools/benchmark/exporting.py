"""Writes the files that exported entries run, in a process of its own: ``python -m tools.benchmark.exporting``."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from tools.benchmark.measuring import PACKAGE_ROOT, BenchmarkError
from tools.benchmark.plans import Cell
from tools.benchmark.workload import EXPORTED, OUR_CONFIGS, Workload

CALIBRATION_IMAGES = 4  # of random pixels, as what is measured: the ranges do not change the time


def with_files(cells: Sequence[Cell], folder: Path) -> list[Cell]:
    """The cells, with the files of those entries that run one; files that ``folder`` already has are reused."""
    return [
        replace(cell, workloads=tuple(_with_file(workload, folder) for workload in cell.workloads)) for cell in cells
    ]


def _with_file(workload: Workload, folder: Path) -> Workload:
    if workload.implementation not in EXPORTED:
        return workload
    file = folder / f'{workload.model}-{workload.queries}{EXPORTED[workload.implementation].ending}'
    if not file.exists():
        print(f'  exporting {file.name}', flush=True)
        request = json.dumps(dict(replace(workload, implementation='mmcondetr').asdict(), file=str(file)))
        done = subprocess.run(
            [sys.executable, '-W', 'ignore', '-m', 'tools.benchmark.exporting', request],
            cwd=PACKAGE_ROOT,
            capture_output=True,
            text=True,
        )
        if done.returncode:
            raise BenchmarkError(f'{file.name} could not be exported:\n{done.stderr[-2000:]}')
    return replace(workload, file=str(file))


def write(workload: Workload) -> None:
    """Export our model with random weights to ``workload.file``, with an int8 backbone where its name contains int8."""
    import numpy as np
    from mmengine.config import Config

    from mmcondetr.engine.config import find_config
    from mmcondetr.export import export_detector
    from mmcondetr.export.describing import describe
    from tools.benchmark.implementations import build

    model, _ = build(workload)
    config = Config.fromfile(find_config(OUR_CONFIGS[workload.model]))
    model.dataset_meta = dict(classes=[f'class {number}' for number in range(model.bbox_head.num_classes)])
    metadata = describe(model, config, OUR_CONFIGS[workload.model], 'random weights')
    file = Path(workload.file)
    shape = workload.height, workload.width, 3
    images = np.random.default_rng(0).integers(0, 256, (CALIBRATION_IMAGES, *shape), dtype=np.uint8)
    export_detector(
        model,
        metadata,
        file,
        'onnx' if file.suffix == '.onnx' else 'openvino',
        calibration=images if 'int8' in file.name else (),
    )


if __name__ == '__main__':
    write(Workload(**json.loads(sys.argv[1])))
