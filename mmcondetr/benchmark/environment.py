"""The machine and the versions that a measurement was taken with."""

from __future__ import annotations

import importlib.metadata
import platform
import time
from pathlib import Path

import torch


def cpu_flags() -> str:
    """The instruction sets that the processor names, empty where they cannot be read."""
    return _cpuinfo('flags')


def describe(device: str, threads: int) -> dict:
    """Device, versions and the measured peak of fp32 matrix products (multiply and add count as two)."""
    flags = cpu_flags().split()
    versions = {}
    for name in ('torch', 'mmdet', 'mmengine', 'mmcv', 'mmcv-lite', 'numpy', 'scipy'):
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            pass
    return dict(
        device=torch.cuda.get_device_name() if device == 'cuda' else _cpuinfo('model name') or platform.processor(),
        kind=device,
        threads=threads,
        instruction_sets=[name for name in ('avx2', 'avx512f', 'avx512_bf16', 'amx_bf16') if name in flags],
        python=platform.python_version(),
        versions=versions,
        peak_gflops=peak_gflops(device, threads))


def peak_gflops(device: str, threads: int, size: int = 2048, repeats: int = 10) -> float:
    """The best rate that a large fp32 matrix product reaches here, in 1e9 operations a second."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    a, b = torch.randn(2, size, size, device=device)
    best = float('inf')
    for _ in range(repeats):
        start = time.perf_counter()
        a @ b
        if device == 'cuda':
            torch.cuda.synchronize()
        best = min(best, time.perf_counter() - start)
    torch.set_num_threads(before)
    return 2 * size**3 / best / 1e9


def _cpuinfo(field: str) -> str:
    path = Path('/proc/cpuinfo')
    if path.is_file():
        for line in path.read_text().splitlines():
            name, _, value = line.partition(':')
            if name.strip() == field:
                return value.strip()
    return ''
