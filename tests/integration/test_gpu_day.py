"""The GPU day: its limits fit its time, a part that fails or hangs leaves the others, and a rehearsal goes through."""

import importlib.metadata
import json
import os
import re
import subprocess
import sys
import zipfile
from argparse import Namespace

import pytest

from tools.convergence.runs import SYSTEMS
from tools.gpu_day import command
from tools.gpu_day.parts import Part, parts


def test_all_parts_fit_into_forty_minutes():
    chosen = parts(Namespace(rehearse=False, coco128='x', more_systems=[]))
    assert sum(part.limit for part in chosen) <= 40 * 60
    assert [part.name for part in chosen][:2] == ['cuda-tests', 'parity'] and len(chosen) == 8


def test_convergence_compares_four_systems_and_groups_with_two_seeds():
    (part,) = (part for part in parts(Namespace(rehearse=False, coco128='x', more_systems=[])) if part.longer)
    words = part.command[part.command.index('--systems') + 1 :]
    systems, (_, *seeds) = words[: words.index('--seeds')], words[words.index('--seeds') : words.index('--epochs')]
    assert {'detr', 'conditional-detr', 'dab-detr', 'deformable-detr', 'conditional-detr_6-groups'} == set(systems)
    assert set(systems) <= set(SYSTEMS) and seeds == ['0', '1']


def test_time_that_earlier_parts_left_goes_to_the_longer_one():
    first, longer, last = Part('a', '', 100, ()), Part('b', '', 200, (), longer=True), Part('c', '', 50, ())
    assert command.time_for([first, longer, last], 350) == 100
    assert command.time_for([longer, last], 330) == 280, 'all but the time of the last'
    assert command.time_for([longer, last], 220) == 200
    assert command.time_for([longer, last], 90) == 90


def test_a_part_that_fails_keeps_what_it_measured(tmp_path):
    code = 'import sys; open(sys.argv[1] + "/figures.json", "w").write("{\\"a\\": 1}"); print("why"); sys.exit(3)'
    found = command.run_part(Part('p', 'fails', 60, (sys.executable, '-c', code, '{out}')), tmp_path, 60)
    assert found['outcome'] == 'failed with exit code 3' and found['figures'] == {'a': 1}
    assert found['last_lines'] == ['why']


def test_a_part_that_hangs_is_stopped_with_its_children(tmp_path):
    code = 'import subprocess, sys, time; subprocess.Popen(["sleep", "60"]); time.sleep(60)'
    found = command.run_part(Part('p', 'hangs', 1, (sys.executable, '-c', code)), tmp_path, 1)
    assert found['outcome'] == 'out of time' and found['seconds'] < 30


ASSUMED = ('torch', 'scipy', 'opencv-python', 'opencv-python-headless', 'matplotlib', 'pytest')
"""What the machine has, with all that these need; see carried.txt."""


def plain(name: str) -> str:
    return re.sub(r'[-_.]+', '-', name).lower()


def carried(root) -> dict[str, str]:
    lines = (root / 'tools/gpu_day/carried.txt').read_text().splitlines()
    return {plain(name): version for name, version in (line.split('==') for line in lines if line[:1] not in '#')}


def with_requirements(*names: str) -> set[str]:
    """The distributions of these names and all that they require here."""
    found, left = set(), [plain(name) for name in names]
    while left:
        name = left.pop()
        if name in found:
            continue
        found.add(name)
        try:
            wanted = importlib.metadata.requires(name) or ()
        except importlib.metadata.PackageNotFoundError:
            continue
        left += [plain(re.match(r'[\w.-]+', line)[0]) for line in wanted if 'extra ==' not in line]
    return found


def installed() -> dict[str, list[str]]:
    """Distributions by module, asked in a process in which pkg_resources has not put setuptools' own on sys.path."""
    call = 'import importlib.metadata, json; print(json.dumps(importlib.metadata.packages_distributions()))'
    return json.loads(subprocess.run([sys.executable, '-c', call], capture_output=True, check=True).stdout)


HIDES = """
import sys
HIDDEN = {hidden}

class Hides:
    def __init__(self, finder):
        self.finder = finder
    def __getattr__(self, name):
        return getattr(self.finder, name)
    def find_spec(self, name, path=None, target=None):
        return None if name.partition('.')[0] in HIDDEN else self.finder.find_spec(name, path, target)

sys.meta_path[:] = [Hides(finder) for finder in sys.meta_path]
"""


def hide_the_rest(root, folder) -> None:
    """Write a sitecustomize.py in which every package of this environment is absent that would be absent there."""
    there = with_requirements(*ASSUMED) | set(carried(root)) | {'mmcondetr', 'pip', 'setuptools'}
    hidden = {
        module for module, distributions in installed().items() if not there & {plain(name) for name in distributions}
    }
    assert {'transformers', 'onnx', 'pandas', 'ruff'} <= hidden and not {'torch', 'mmdet', 'cv2', 'numpy'} & hidden
    folder.mkdir()
    (folder / 'sitecustomize.py').write_text(HIDES.format(hidden=sorted(hidden)))


def test_what_is_carried_is_what_was_tested(root):
    pins = (root / 'requirements.txt').read_text()
    assert len(carried(root)) > 15
    for line in (root / 'tools/gpu_day/carried.txt').read_text().splitlines():
        assert line.startswith('#') or re.search(f'^{re.escape(line)}$', pins, re.MULTILINE), line


@pytest.mark.slow
def test_carried_wheels_are_installed_for_the_run_only(root, source_environment, tmp_path):
    wheel = tmp_path / 'carried_thing-1.0-py3-none-any.whl'
    with zipfile.ZipFile(wheel, 'w') as archive:
        archive.writestr('carried_thing.py', 'WORD = "it is here"')
        archive.writestr(
            'carried_thing-1.0.dist-info/METADATA', 'Metadata-Version: 2.1\nName: carried-thing\nVersion: 1.0\n'
        )
        archive.writestr(
            'carried_thing-1.0.dist-info/WHEEL', 'Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n'
        )
        archive.writestr('carried_thing-1.0.dist-info/RECORD', '')
    python = tmp_path / 'python'
    says = 'import carried_thing; print(carried_thing.WORD, carried_thing.__file__)'
    python.write_text(
        f'#!/bin/sh\ncase "$2" in pip) exec {sys.executable} "$@";; *) exec {sys.executable} -c "{says}";; esac\n'
    )
    python.chmod(0o755)
    call = ['bash', str(root / 'tools/gpu_day.sh'), str(tmp_path / 'out')]
    environment = {**source_environment, 'PYTHON': str(python), 'WHEELS': str(tmp_path)}
    done = subprocess.run(call, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0 and done.stdout.startswith('it is here '), done.stderr
    assert not os.path.exists(done.stdout.split()[-1]), 'and gone afterwards'


@pytest.mark.slow
def test_the_rehearsal_goes_through(root, source_environment, tmp_path):
    """With the packages only that a machine with a GPU has, or that are carried there."""
    out = tmp_path / 'out'
    hide_the_rest(root, tmp_path / 'hides')
    search = os.pathsep.join([str(tmp_path / 'hides'), source_environment.get('PYTHONPATH', '')])
    environment = {**source_environment, 'PYTHONPATH': search, 'PYTHON': sys.executable, 'WHEELS': str(tmp_path)}
    environment['PYTEST_DISABLE_PLUGIN_AUTOLOAD'] = '1'  # their metadata are still there
    done = subprocess.run(
        ['bash', str(root / 'tools/gpu_day.sh'), str(out), '--rehearse'],
        env=environment,
        capture_output=True,
        text=True,
        timeout=1200,
    )
    results = json.loads((out / 'gpu_day.json').read_text())
    outcomes = {name: part.get('outcome') for name, part in results.items() if name != 'environment'}
    print({name: part.get('seconds') for name, part in results.items() if name != 'environment'})
    assert set(outcomes.values()) == {'done'}, done.stdout + json.dumps(results, indent=1)
    assert done.returncode == 0 and len(outcomes) == 8
    tests = results['cuda-tests']['figures']
    assert tests['passed'] >= 12 and tests['failed'] == 0
    # Whole modules, which have no tests for CUDA, are left out where a package is missing.
    missing = 'could not import', 'a machine with a GPU need not have it'
    assert {reason for reason in tests['skipped_because'] if not reason.startswith(missing)} == {
        'mmcv-lite has no compiled ops'
    }
    runs = json.loads((out / 'convergence/convergence.json').read_text())['runs']
    assert {run['system'] for run in runs} == {'conditional-detr', 'conditional-detr_6-groups'}
    assert results['resume']['figures']['largest difference of a weight']['value'] == 0  # bit for bit, on a CPU
    assert results['parity']['figures']['logits: ours against mmdet, cpu']['within']
