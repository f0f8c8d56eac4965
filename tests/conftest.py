"""Shared fixtures; being here also puts tests/ on the path, for its helper modules."""

import gc
import os
import subprocess
import sys
from pathlib import Path

os.environ.setdefault('OMP_NUM_THREADS', '1')  # before torch: small tensors are slower on many threads
os.environ.setdefault('MPLBACKEND', 'Agg')

import pytest  # noqa: E402
import yapf.yapflib.yapf_api  # noqa: E402, F401  (caches its grammar once, here, before xdist's workers would race for it)

import mmcondetr  # noqa: E402, F401  (before a test imports anything of mmdet)

ROOT = Path(__file__).resolve().parents[1]
# The processes that tests start import this checkout, and neither transformers nor scikit-learn, like those of users:
# both are here for comparisons and for other tools, but mmengine and mmdet would import them, for a third of the time.
ABSENT = ROOT / 'tests' / 'absent'
os.environ['PYTHONPATH'] = os.pathsep.join(filter(None, [str(ROOT), str(ABSENT), os.environ.get('PYTHONPATH')]))
REHEARSES_CUDA = 'MMCONDETR_REHEARSE_CUDA' in os.environ
"""Whether the tests marked ``cuda`` run on a CPU: the rehearsal of tools/gpu_day.sh, which looks for mistakes."""


@pytest.fixture(scope='session')
def root() -> Path:
    """The source checkout."""
    return ROOT


@pytest.fixture(scope='session')
def cuda() -> str:
    """The device of tests marked ``cuda``."""
    return 'cpu' if REHEARSES_CUDA else 'cuda'


@pytest.fixture(scope='session')
def source_environment() -> dict:
    """Environment variables for a child process that must import mmcondetr from this checkout."""
    return dict(os.environ)


@pytest.fixture(scope='session')
def run_tool(source_environment):
    """Run ``tools/<name>.py`` of the checkout in a child process: (name, *arguments, cwd=...) -> CompletedProcess."""

    def run(name: str, *arguments: object, cwd: Path, timeout: float = 300) -> subprocess.CompletedProcess:
        command = [sys.executable, str(ROOT / 'tools' / f'{name}.py'), *map(str, arguments)]
        return subprocess.run(command, cwd=cwd, env=source_environment, capture_output=True, text=True, timeout=timeout)

    return run


def pytest_collection_finish():
    """Keep what was imported out of the garbage collection, which mmengine asks for with each data set it builds."""
    gc.collect()
    gc.freeze()


def pytest_collection_modifyitems(items):
    """Skip tests marked ``cuda`` if PyTorch sees no GPU, and this is no rehearsal."""
    import torch

    if not torch.cuda.is_available() and not REHEARSES_CUDA:
        for item in items:
            if item.get_closest_marker('cuda'):
                item.add_marker(pytest.mark.skip(reason='needs CUDA'))
