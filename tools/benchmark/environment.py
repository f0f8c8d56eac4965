"""The machine and the versions that a measurement was taken with."""

from __future__ import annotations

import importlib.metadata
import platform
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import torch


def cpu_flags() -> str:
    """The instruction sets that the processor names, empty where they cannot be read."""
    return _cpuinfo('flags')


def describe(device: str, threads: int) -> dict:
    """Device, versions and the measured peak in fp32 (:func:`peak_gflops`)."""
    flags = cpu_flags().split()
    return dict(
        device=torch.cuda.get_device_name() if device == 'cuda' else _cpuinfo('model name') or platform.processor(),
        kind=device,
        # The name that a virtual machine shows may say no more than the maker; these tell AMD's Zen 4 from its Zen 5.
        **(dict(cpu_family=_cpuinfo('cpu family'), cpu_model=_cpuinfo('model')) if device == 'cpu' else {}),
        threads=threads,
        instruction_sets=[name for name in ('avx2', 'avx512f', 'avx512_bf16', 'amx_bf16') if name in flags],
        python=platform.python_version(),
        versions=versions(('torch', 'mmdet', 'mmengine', 'mmcv', 'mmcv-lite', 'numpy', 'scipy')),
        peak_gflops=peak_gflops(device, threads),
    )


def versions(names: Iterable[str]) -> dict[str, str]:
    """The versions of those packages that are installed."""
    found = {}
    for name in names:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            pass
    return found


def peak_gflops(device: str, threads: int, repeats: int = 10) -> float:
    """The best rate that fp32 reaches here, in 1e9 operations a second (multiply and add count as two).

    The better of a large matrix product and a 3 x 3 convolution: on a CPU they come from two libraries, and on some
    processors one of them runs at half the other's rate.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    a, b = torch.randn(2, 2048, 2048, device=device)
    features = torch.randn(1, 256, 64, 64, device=device).to(memory_format=torch.channels_last)
    kernel = torch.randn(256, 256, 3, 3, device=device).to(memory_format=torch.channels_last)
    works = (
        (2 * 2048**3, lambda: a @ b),
        (2 * 9 * 256 * 256 * 64 * 64, lambda: torch.conv2d(features, kernel, padding=1)),
    )
    best = max(operations / _shortest(work, device, repeats) for operations, work in works)
    torch.set_num_threads(before)
    return best / 1e9


def _shortest(work: Callable[[], object], device: str, repeats: int) -> float:
    best = float('inf')
    for _ in range(repeats):
        start = time.perf_counter()
        work()
        if device == 'cuda':
            torch.cuda.synchronize()
        best = min(best, time.perf_counter() - start)
    return best


def _cpuinfo(field: str) -> str:
    path = Path('/proc/cpuinfo')
    if path.is_file():
        for line in path.read_text().splitlines():
            name, _, value = line.partition(':')
            if name.strip() == field:
                return value.strip()
    return ''
