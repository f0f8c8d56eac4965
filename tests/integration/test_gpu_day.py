"""The GPU day: its limits fit its time, a part that fails or hangs leaves the others, and a rehearsal goes through."""

import json
import os
import subprocess
import sys
from argparse import Namespace

import pytest

from tools.gpu_day import command
from tools.gpu_day.parts import Part, parts


def test_all_parts_fit_into_forty_minutes():
    chosen = parts(Namespace(rehearse=False, coco128='x', more_systems=[]))
    assert sum(part.limit for part in chosen) <= 40 * 60
    assert [part.name for part in chosen][:2] == ['cuda-tests', 'parity'] and len(chosen) == 8


def test_a_part_that_fails_keeps_what_it_measured(tmp_path):
    code = 'import sys; open(sys.argv[1] + "/figures.json", "w").write("{\\"a\\": 1}"); print("why"); sys.exit(3)'
    found = command.run_part(Part('p', 'fails', 60, (sys.executable, '-c', code, '{out}')), tmp_path, 60)
    assert found['outcome'] == 'failed with exit code 3' and found['figures'] == {'a': 1}
    assert found['last_lines'] == ['why']


def test_a_part_that_hangs_is_stopped_with_its_children(tmp_path):
    code = 'import subprocess, sys, time; subprocess.Popen(["sleep", "60"]); time.sleep(60)'
    found = command.run_part(Part('p', 'hangs', 1, (sys.executable, '-c', code)), tmp_path, 1)
    assert found['outcome'] == 'out of time' and found['seconds'] < 30


@pytest.mark.slow
def test_the_rehearsal_goes_through(root, source_environment, tmp_path):
    out = tmp_path / 'out'
    environment = {**source_environment, 'PYTHON': sys.executable, 'WHEELS': os.fspath(tmp_path)}
    done = subprocess.run(
        ['bash', str(root / 'tools/gpu_day.sh'), str(out), '--rehearse'],
        env=environment,
        capture_output=True,
        text=True,
        timeout=1200,
    )
    results = json.loads((out / 'gpu_day.json').read_text())
    outcomes = {name: part.get('outcome') for name, part in results.items() if name != 'environment'}
    assert set(outcomes.values()) == {'done'}, done.stdout + json.dumps(results, indent=1)
    assert done.returncode == 0 and len(outcomes) == 8
    assert results['resume']['figures']['largest difference of a weight']['value'] == 0  # bit for bit, on a CPU
    assert results['parity']['figures']['logits: ours against mmdet, cpu']['within']
