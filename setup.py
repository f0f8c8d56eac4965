"""What setup.cfg cannot say: the wheel has configs/, tools/ and model-index.yml as mmcondetr/.mim, where mim looks."""

import os
import shutil
import tempfile

from setuptools import setup
from setuptools.command.build_py import build_py

ROOT = os.path.dirname(os.path.abspath(__file__))
MIM_SOURCES = ('configs', 'tools', 'model-index.yml')


class BuildWithMim(build_py):
    """Copies what mim needs beside the modules; an editable install has the originals and gets no copy."""

    def run(self):
        super().run()
        if self.editable_mode:
            return
        target = os.path.join(self.build_lib, 'mmcondetr', '.mim')
        shutil.rmtree(target, ignore_errors=True)
        os.makedirs(target)
        for name in MIM_SOURCES:
            source = os.path.join(ROOT, name)
            if os.path.isdir(source):
                shutil.copytree(
                    source, os.path.join(target, name), ignore=shutil.ignore_patterns('__pycache__', '*.py[cod]', '.*')
                )
            else:
                shutil.copy2(source, target)


with tempfile.TemporaryDirectory(prefix='mmcondetr-build-') as scratch:
    # Neither build/ nor an egg-info is left in the source tree, and no stale build/ gets into a wheel.
    os.mkdir(os.path.join(scratch, 'egg'))
    setup(
        cmdclass={'build_py': BuildWithMim},
        options={
            'build': {'build_base': os.path.join(scratch, 'build')},
            'egg_info': {'egg_base': os.path.join(scratch, 'egg')},
        },
    )
