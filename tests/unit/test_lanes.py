"""Lanes: the content of a result file, the page made from it, and pins equal to the floors of setup.cfg."""

import configparser
import json
import re
from pathlib import Path

import pytest

from tools.lanes import running
from tools.lanes.lanes import LANES, QUICK, Lane
from tools.lanes.page import read_results, results_table, updated

ROOT = Path(__file__).resolve().parents[2]
JUNIT = """<testsuites><testsuite>
<testcase classname="a.b" name="good"/><testcase classname="a.b" name="also"/>
<testcase classname="a.b" name="bad"><failure message="assert 1 == 2 | &lt;x&gt;"/></testcase>
<testcase classname="a.b" name="broken"><error message="no such fixture"/></testcase>
<testcase classname="a.b" name="left"><skipped message="needs CUDA"/></testcase>
<testcase classname="" name="a.c"><skipped message="collection skipped">('a/c.py', 9, "Skipped: no 'onnx'")</skipped>
</testcase>
</testsuite></testsuites>"""


def result(**changes) -> dict:
    base = dict(lane='old', what='the floor', python='3.10.13', commit='0123456789ab', date='2026-01-02', tests=[])
    base |= dict(machine='Linux', install_seconds=5, test_seconds=9, outcome='passed', passed=3, failed=0, skipped=1)
    return {**base, 'versions': {'torch': '2.1.2', 'mmcv-lite': '2.1.0'}, 'failures': [], **changes}


def test_a_junit_file_is_counted(tmp_path):
    (tmp_path / 'junit.xml').write_text(JUNIT)
    found = running.read_junit(tmp_path / 'junit.xml')
    assert (found['passed'], found['failed'], found['skipped']) == (2, 2, 2)
    assert [failure['test'] for failure in found['failures']] == ['a.b::bad', 'a.b::broken']
    assert found['skipped_because'] == {'needs CUDA': 1, "no 'onnx'": 1}


def test_the_table_names_versions_and_failures():
    failed = result(lane='new', outcome='failed', failed=1, failures=[dict(test='a::b', message='x | y\nz')])
    text = results_table([result(), failed, result(lane='none', outcome='not installed', step='torch==9', passed=None)])
    assert '| `old`: the floor | 3.10.13 | 2.1.2 |' in text and 'mmcv-lite 2.1.0' in text
    assert 'failed: `a::b`: x \\| y z' in text
    assert '`pip install torch==9`' in text


def test_only_what_is_between_the_markers_changes(tmp_path):
    (tmp_path / 'old.json').write_text(json.dumps(result()))
    page = 'before\n<!-- lanes: begin (tools/lanes.py) -->\nstale\n<!-- lanes: end -->\nafter\n'
    found = updated(page, read_results(tmp_path))
    assert found.startswith('before\n') and found.endswith('<!-- lanes: end -->\nafter\n') and 'stale' not in found
    assert updated(found, read_results(tmp_path)) == found


def test_the_page_is_up_to_date():
    page = (ROOT / 'docs' / 'compatibility.md').read_text()
    assert updated(page, read_results(ROOT / 'docs' / 'compatibility')) == page, 'run python tools/lanes.py --page'


def test_the_oldest_lane_pins_the_floors_of_setup_cfg():
    settings = configparser.ConfigParser()
    settings.read(ROOT / 'setup.cfg')
    extras = settings['options.extras_require']
    lines = f'{settings["options"]["install_requires"]}\n{extras["lite"]}\n{extras["torch"]}'
    floors = dict(re.findall(r'^([\w-]+) >=([\w.]+)', lines, re.M))
    pins = dict(word.split('==') for step in LANES['oldest'].installs for word in step if '==' in word)
    assert {'torch', 'mmdet', 'mmengine', 'mmcv-lite', 'numpy', 'safetensors', 'wrapt'} <= floors.keys()
    for name, floor in floors.items():
        assert pins[name] == floor or pins[name].startswith(f'{floor}.'), (
            f'{name}: {pins[name]} is not the floor {floor}'
        )


def test_every_lane_runs_tests_that_are_there():
    for lane in LANES.values():
        assert all((ROOT / test).is_file() for test in lane.tests), lane.name
    assert len(QUICK) > 10


def test_a_python_that_is_not_there_is_named():
    with pytest.raises(running.LaneError, match='python3.99'):
        running.find_python('3.99')


def test_a_lane_that_cannot_be_installed_says_which_step(tmp_path):
    version = '.'.join(map(str, __import__('sys').version_info[:2]))
    lane = Lane('broken', 'nothing', version, (('--no-index', 'no-such-package-at-all'),))
    found = running.run_lane(lane, ROOT, tmp_path, keep=False, reuse=False, limit=120)
    assert found['outcome'] == 'not installed' and 'no-such-package-at-all' in found['step']
    assert 'no-such-package-at-all' in (tmp_path / 'broken.log').read_text()
