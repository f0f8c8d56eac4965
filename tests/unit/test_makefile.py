"""Every target of the Makefile can be read by make and its shell; the linter is the same everywhere."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
TARGETS = re.search(r'^\.PHONY: (.*)$', (ROOT / 'Makefile').read_text(), re.M).group(1).split()

pytestmark = pytest.mark.skipif(not shutil.which('make'), reason='needs make')


def make(*arguments: str) -> subprocess.CompletedProcess:
    return subprocess.run(['make', *arguments], cwd=ROOT, capture_output=True, text=True, timeout=60)


@pytest.mark.parametrize('target', TARGETS)
@pytest.mark.parametrize('environment', ['VENV=work_dirs/none', 'VENV='])
def test_the_commands_of_every_target_are_valid_shell(target, environment):
    done = make('-n', target, environment)
    assert done.returncode == 0, done.stderr
    parsed = subprocess.run(['sh', '-n'], input=done.stdout, capture_output=True, text=True, timeout=60)
    assert parsed.returncode == 0, f'{done.stdout}\n{parsed.stderr}'


def test_help_names_the_other_targets():
    done = make('help')
    assert done.returncode == 0, done.stderr
    assert [target for target in TARGETS if f'make {target} ' in done.stdout] == [
        target for target in TARGETS if target not in ('help', 'clean-venv')
    ]


def test_the_linter_checks_rules_and_format_everywhere():
    commands = make('-n', 'lint', 'VENV=').stdout
    assert 'ruff check .' in commands and 'ruff format --check .' in commands
    hooks = (ROOT / '.pre-commit-config.yaml').read_text()
    assert 'entry: ruff check' in hooks and 'entry: ruff format' in hooks
    lines = (ROOT / '.ci' / 'run').read_text().splitlines()
    assert lines.index('make lint') < lines.index('exec make test')
