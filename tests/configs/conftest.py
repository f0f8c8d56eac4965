import copy
import functools
from pathlib import Path

import pytest
from mmengine import Config

import mmcondetr  # noqa: F401  (before anything of mmdet)

ROOT = Path(__file__).parents[2]
ANY_LEAF = sorted(path for path in (ROOT / 'configs').glob('*/*.py') if path.parent.name != '_base_')
LEAVES = [
    path
    for path in ANY_LEAF
    if path.parent.name in ('conditional_detr', 'shapes', 'bccd', 'coco128')
    and path.stem.startswith('conditional-detr_')
]
TABLE1_LEAVES = [path for path in ANY_LEAF if path.parent.name == 'conditional_detr']


def pytest_generate_tests(metafunc):
    """``any_leaf``: every config; ``leaf``: every Conditional DETR; ``table1_leaf``: the twelve of Table 1."""
    for name, paths in (('any_leaf', ANY_LEAF), ('leaf', LEAVES), ('table1_leaf', TABLE1_LEAVES)):
        if name in metafunc.fixturenames:
            metafunc.parametrize(name, paths, ids=lambda path: path.stem)


@pytest.fixture(scope='session')
def root() -> Path:
    return ROOT


@functools.cache
def read(path: str) -> Config:
    return Config.fromfile(path)


@pytest.fixture(scope='session')
def load_config():
    return lambda path: copy.deepcopy(read(str(path)))
