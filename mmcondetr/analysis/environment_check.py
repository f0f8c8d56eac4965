"""Installed versions and their compatibility."""

from __future__ import annotations

import importlib.metadata
import platform

import torch

NAMES = ('mmcondetr', 'torch', 'mmdet', 'mmengine', 'mmcv', 'mmcv-lite', 'numpy', 'opencv-python', 'pycocotools')


def look_at_environment() -> tuple[list[tuple[str, str]], list[str], list[str]]:
    """(name, version) rows, errors and warnings."""
    versions = {name: _version(name) for name in NAMES}
    rows = [('Python', platform.python_version())]
    rows += [(name, version) for name, version in versions.items() if version]
    errors, warnings = [], []
    if versions['mmcv'] and versions['mmcv-lite']:
        errors.append('mmcv and mmcv-lite are both installed and share one folder: uninstall both, then install one')
    for name, low, high in (('mmdet', (3, 3), (3, 4)), ('mmengine', (0, 10), (0, 11)), ('torch', (2, 1), (99,))):
        found = versions[name]
        if found and not low <= _numbers(found) < high:
            errors.append(f'{name} {found} is not supported: use at least {_dotted(low)} and below {_dotted(high)}')
    if torch.cuda.is_available():
        gpu = torch.cuda.get_device_properties(0)
        rows.append(('GPU', f'{gpu.name}, {gpu.total_memory / 2**30:.0f} GiB, CUDA {torch.version.cuda}'))
    else:
        rows.append(('GPU', 'none that torch can use'))
        if torch.version.cuda:
            warnings.append(
                f'torch was built for CUDA {torch.version.cuda}, but found no GPU: training runs on the CPU'
            )
    rows.append(('compiled operations', 'mmcv' if versions['mmcv'] else 'PyTorch versions (mmcv-lite)'))
    return rows, errors, warnings


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return ''


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split('+')[0].split('.')[:2] if part.isdigit())


def _dotted(numbers: tuple[int, ...]) -> str:
    return '.'.join(map(str, numbers))
