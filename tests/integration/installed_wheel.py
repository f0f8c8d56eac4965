"""A wheel, built from what git tracks, and an environment with it and nothing of the source; imported by tests."""

import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest


def check_call(command: list, **options) -> str:
    done = subprocess.run([*map(str, command)], capture_output=True, text=True, timeout=600, **options)
    assert done.returncode == 0, f'{command}\n{done.stdout[-4000:]}\n{done.stderr[-4000:]}'
    return done.stdout + done.stderr


def files_under(folder: Path) -> set:
    return {path.relative_to(folder).as_posix() for path in folder.rglob('*') if path.is_file()}


@pytest.fixture(scope='session')
def checkout(root, tmp_path_factory) -> Path:
    """A copy of what git does not ignore, as a fresh clone would have it."""
    copy = tmp_path_factory.mktemp('checkout')
    try:
        command = ['git', 'ls-files', '-z', '--cached', '--others', '--exclude-standard']
        listing = subprocess.run(command, cwd=root, capture_output=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        pytest.skip('the source is no git checkout')
    for name in filter(None, listing.decode().split('\0')):
        if (root / name).is_file():
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(root / name, copy / name)
    return copy


@pytest.fixture(scope='session')
def wheel(checkout, tmp_path_factory) -> Path:
    before, target = files_under(checkout), tmp_path_factory.mktemp('wheel')
    check_call([sys.executable, '-m', 'pip', 'wheel', '--no-deps', '--no-build-isolation', '-w', target, checkout])
    assert files_under(checkout) == before, 'building left something in the source tree'
    (path,) = target.glob('mmcondetr-*.whl')
    return path


@pytest.fixture(scope='session')
def shapes(root, run_tool, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp('shapes')
    done = run_tool('generate_shapes', folder / 'set', '--num-train', 4, '--num-val', 2, '--image-size', 64, cwd=folder)
    assert done.returncode == 0, done.stderr
    return folder / 'set'


class Installed:
    """An environment with the wheel, and everything else from the one that runs the tests."""

    def __init__(self, folder: Path, wheel: Path, shapes: Path) -> None:
        check_call([sys.executable, '-m', 'venv', '--without-pip', folder / 'venv'])
        self.python = folder / 'venv' / 'bin' / 'python'
        self.cwd = folder / 'elsewhere'
        self.cwd.mkdir()
        self.environment = dict(
            {name: value for name, value in os.environ.items() if name != 'VIRTUAL_ENV'},
            PYTHONPATH=str(Path(__file__).parents[1] / 'absent'),  # without the checkout
            SHAPES_ROOT=f'{shapes}/', NO_PROXY='127.0.0.1', no_proxy='127.0.0.1', CUDA_VISIBLE_DEVICES='-1',
            PATH=f'{self.python.parent}{os.pathsep}{os.environ["PATH"]}',
        )  # fmt: skip
        check_call([sys.executable, '-m', 'pip', '--python', self.python, 'install', '--no-deps', '--no-index', wheel])
        self.packages = Path(self.run('-c', 'import sysconfig; print(sysconfig.get_path("purelib"))').strip())
        (self.packages / 'others.pth').write_text(
            '\n'.join(sorted({sysconfig.get_path('purelib'), sysconfig.get_path('platlib')}))
        )
        self.package = self.packages / 'mmcondetr'

    def run(self, *arguments: object) -> str:
        return check_call([self.python, '-W', 'ignore', *arguments], env=self.environment, cwd=self.cwd)

    def mim(self, *arguments: object) -> str:
        return self.run('-m', 'mim', *arguments)
