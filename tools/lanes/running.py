"""Runs one lane: a fresh environment with the committed source, the tests, and the result file."""

from __future__ import annotations

import json
import os
import platform
import re
import shutil
import subprocess
import time
import xml.etree.ElementTree as ElementTree
from collections import Counter
from datetime import datetime, timezone
from pathlib import Path

from tools.lanes.lanes import Lane

PACKAGES = (
    *('torch', 'mmdet', 'mmengine', 'mmcv', 'mmcv-lite', 'onedl-mmdetection', 'onedl-mmengine', 'onedl-mmcv'),
    *('numpy', 'opencv-python', 'scipy', 'pillow', 'pycocotools', 'safetensors', 'setuptools', 'transformers', 'wrapt'),
)
"""Packages whose versions a result contains."""


class LaneError(Exception):
    """A lane cannot be run; the message gives the reason."""


def find_python(version: str) -> str:
    """The interpreter ``pythonX.Y``: on the path, or installed by pyenv.

    Raises:
        LaneError: there is none.
    """
    pyenv = Path(os.environ.get('PYENV_ROOT', Path.home() / '.pyenv')) / 'versions'
    candidates = [shutil.which(f'python{version}'), *sorted(map(str, pyenv.glob(f'{version}.*/bin/python')))]
    for candidate in filter(None, candidates):
        answer = subprocess.run(
            [candidate, '-c', 'import sys; print("%d.%d" % sys.version_info[:2])'], capture_output=True, text=True
        )
        if answer.returncode == 0 and answer.stdout.strip() == version:
            return candidate
    raise LaneError(f'no python{version} on this machine: the lane is not run')


def read_junit(path: Path) -> dict:
    """Counts, failures and reasons for skipping of a pytest run, from its JUnit file."""
    counts, failures, reasons = Counter(), [], Counter()
    for case in ElementTree.parse(path).getroot().iter('testcase'):
        problem = case.find('failure') if case.find('failure') is not None else case.find('error')
        skipped = case.find('skipped')
        if problem is not None:
            counts['failed'] += 1
            failures.append(
                dict(test=f'{case.get("classname")}::{case.get("name")}', message=(problem.get('message') or '')[:300])
            )
        elif skipped is not None:
            counts['skipped'] += 1
            reasons[_reason(skipped)[:160]] += 1
        else:
            counts['passed'] += 1
    return dict(
        **{name: counts[name] for name in ('passed', 'failed', 'skipped')}, failures=failures, skipped_because=reasons
    )


def _reason(skipped: ElementTree.Element) -> str:
    """Why a test was skipped; of a whole module pytest's message says only that, and its text has the reason."""
    found = re.search(r"Skipped: (.*)[\"']\)", skipped.text or '')
    message = skipped.get('message') or ''
    return found[1] if found and message == 'collection skipped' else message


def _call(command: list[str], log, cwd: Path, environment: dict, limit: float) -> int:
    log.write(f'$ {" ".join(command)}\n')
    log.flush()
    try:
        return subprocess.run(
            command, cwd=cwd, env=environment, stdout=log, stderr=subprocess.STDOUT, timeout=limit
        ).returncode
    except subprocess.TimeoutExpired:
        log.write(f'stopped after {limit:.0f} s\n')
        return 124


def run_lane(lane: Lane, source: Path, work: Path, keep: bool, reuse: bool, limit: float) -> dict:
    """Run ``lane`` on the committed state of ``source`` under ``work``; returns the content of its result file.

    ``limit`` is the time limit of each step in seconds. ``keep`` keeps the environment (several GB), ``reuse`` uses an
    existing one and installs only what is missing.

    Raises:
        LaneError: there is no such Python on this machine.
    """
    python = find_python(lane.python)
    home = (work / lane.name).resolve()
    reuse = reuse and (home / 'venv').is_dir()
    shutil.rmtree(home / 'source' if reuse else home, ignore_errors=True)
    (home / 'source').mkdir(parents=True)
    subprocess.run(f'git archive HEAD | tar -x -C {home / "source"}', shell=True, cwd=source, check=True)
    commit = subprocess.run(['git', 'rev-parse', 'HEAD'], cwd=source, capture_output=True, text=True).stdout.strip()
    environment = {name: value for name, value in os.environ.items() if name not in ('PYTHONPATH', 'VIRTUAL_ENV')}
    environment |= {'OMP_NUM_THREADS': '1', 'MPLBACKEND': 'Agg', **lane.environment}
    inside = str(home / 'venv' / 'bin' / 'python')
    result = dict(lane=lane.name, what=lane.what, python=lane.python, commit=commit, tests=list(lane.tests))
    result |= dict(date=f'{datetime.now(timezone.utc):%Y-%m-%d}', machine=_machine(), installs=lane.installs)
    started = time.monotonic()
    with open(work / f'{lane.name}.log', 'w') as log:
        steps = [[python, '-m', 'venv', str(home / 'venv')]]
        steps += [[inside, '-m', 'pip', 'install', '-q', *arguments] for arguments in lane.installs]
        for step in steps[1:] if reuse else steps:
            if _call(step, log, home / 'source', environment, limit):
                return result | dict(outcome='not installed', step=' '.join(step[4:]))
        result['install_seconds'] = round(time.monotonic() - started)
        frozen = subprocess.run([inside, '-m', 'pip', 'list', '--format', 'json'], capture_output=True, text=True)
        versions = {entry['name'].lower(): entry['version'] for entry in json.loads(frozen.stdout)}
        result['versions'] = {name: versions[name] for name in PACKAGES if name in versions}
        result['python'] = subprocess.run(
            [inside, '-c', 'import platform; print(platform.python_version())'], capture_output=True, text=True
        ).stdout.strip()
        started = time.monotonic()
        pytest = [inside, '-m', 'pytest', '-q', '-p', 'no:cacheprovider', '--junitxml', str(home / 'junit.xml')]
        code = _call([*pytest, *lane.tests], log, home / 'source', environment, limit)
    result['test_seconds'] = round(time.monotonic() - started)
    if (home / 'junit.xml').exists():
        result |= read_junit(home / 'junit.xml')
    outcomes = {0: 'passed', 1: 'failed', 124: 'not finished'}
    result['outcome'] = outcomes.get(code, 'pytest could not run them')
    if not keep:
        shutil.rmtree(home)
    return result


def _machine() -> str:
    return f'{platform.system()} {platform.machine()}, {os.cpu_count()} cores'
