"""The harness of ``make torture``: outcomes are named correctly, and every part can be rehearsed."""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import time
from pathlib import Path

import pytest

from mmcondetr.errors import UserError
from tools.torture import attempts as attempts_module
from tools.torture import command, page
from tools.torture.attacks_data import mutate, places
from tools.torture.attempts import OUTCOMES, Attempt, DataLost, Hung, Result, Silent, carry_out, start, wait_for

pytestmark = pytest.mark.skipif(not sys.platform.startswith('linux'), reason='forks, and reads /proc')


def fail(error: Exception):
    def run() -> None:
        raise error

    return run


def touch(path: Path):
    return lambda: path.write_text('x') and None


@pytest.mark.parametrize(
    ('run', 'options', 'outcome'),
    [
        (lambda: None, {}, 'survived'),
        (lambda: 0, dict(must_fail=True), 'silent'),
        (fail(UserError('one line')), dict(must_fail=True), 'clear error'),
        (fail(KeyError('x')), {}, 'traceback'),
        (lambda: 1, {}, 'traceback'),  # it failed without a word
        (fail(Silent('wrong')), {}, 'silent'),
        (fail(DataLost('gone')), {}, 'data lost'),
        (fail(Hung('it waits')), {}, 'hang'),
        (lambda: os.kill(os.getpid(), signal.SIGUSR1), {}, 'crash'),
        (lambda: bytearray(2 << 30) and None, dict(megabytes=200), 'traceback'),
        (lambda: time.sleep(60), dict(seconds=0.3), 'hang'),
        (lambda: None, dict(check=fail(DataLost('gone'))), 'data lost'),
    ],
)
def test_an_end_is_called_what_it_is(tmp_path, run, options, outcome):
    found = carry_out(Attempt('it', run, **options), tmp_path / 'canary')
    assert found.outcome == outcome in OUTCOMES, found


def test_code_that_ran_outweighs_everything(tmp_path):
    canary = tmp_path / 'canary'
    assert carry_out(Attempt('it', touch(canary), must_fail=True), canary).outcome == 'code run'
    assert carry_out(Attempt('it', lambda: None), canary).outcome == 'survived', 'the canary is new each time'


def test_who_works_is_no_hang_and_a_loop_without_end_is_one(monkeypatch):
    def work(seconds: float):
        def run() -> None:
            end = time.process_time() + seconds
            while time.process_time() < end:
                pass

        return run

    assert carry_out(Attempt('it', work(0.6), seconds=0.3)).outcome == 'survived'
    monkeypatch.setattr(attempts_module, 'PATIENCE', 2)
    assert carry_out(Attempt('it', work(60), seconds=0.3)).outcome == 'hang'


def test_nobody_waits_for_a_process_that_was_stopped():
    kinds = {
        'ends': lambda: None,
        'sleeps': lambda: time.sleep(60),
        'stops': lambda: os.kill(os.getpid(), signal.SIGSTOP),
    }
    output = os.open(os.devnull, os.O_WRONLY)
    ends, sleeps, stops = (start(Attempt(name, run), output) for name, run in kinds.items())
    started = time.monotonic()
    assert set(wait_for([ends, stops], 30, stopped=stops)) == {ends} and time.monotonic() - started < 20
    assert not wait_for([sleeps], 0.3), 'neither busy nor at its end'
    os.close(output)


def test_no_process_is_left(tmp_path):
    def run() -> None:
        if os.fork() == 0:
            time.sleep(60)
            os._exit(0)
        (tmp_path / 'group').write_text(str(os.getpgid(0)))

    carry_out(Attempt('it', run))
    group = int((tmp_path / 'group').read_text())
    for _ in range(100):
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            return
        time.sleep(0.05)  # until init has reaped it
    states = [path.read_text().rpartition(')')[2].split() for path in Path('/proc').glob('[0-9]*/stat')]
    assert not [state for state in states if int(state[2]) == group and state[0] != 'Z']


def test_mutations_are_seeded_and_change_something():
    data = dict(images=[dict(id=1, file_name='a')], annotations=[dict(id=1, bbox=[1, 2, 3, 4])])
    first = [mutate(data, random.Random(number)) for number in range(40)]
    assert repr(first) == repr([mutate(data, random.Random(number)) for number in range(40)])
    assert sum(changed != data for changed, _ in first) > 35
    assert len(places(data)) == 12


def results(**counts: int) -> dict:
    about = dict(
        seed=0,
        minutes=1,
        jobs=2,
        load=7.0,
        commit='0' * 40,
        date='2026-01-01',
        machine='Linux',
        python='3.11',
        versions={},
    )
    whole = dict(tried=100, seconds=1, counts=dict.fromkeys(OUTCOMES, 0), wrong=[], not_tried=0, environment=about)
    parts = {name: json.loads(json.dumps(whole)) for name in command.SHARES}
    for key, count in counts.items():
        part, _, outcome = key.partition('_')
        parts[part]['counts'][outcome.replace('_', ' ')] = count
    return dict(parts=parts)


def test_goals():
    assert all(met for _, _, met in page.goals(results()))
    for counts in (
        dict(payloads_code_run=1),
        dict(kills_data_lost=1),
        dict(images_silent=1),
        dict(processes_hang=1),
        dict(annotations_traceback=1),
        dict(settings_traceback=5),
    ):
        assert [met for _, _, met in page.goals(results(**counts))].count(False) == 1, counts
    assert all(met for _, _, met in page.goals(results(settings_traceback=4, images_traceback=9)))
    partly = results()
    del partly['parts']['kills']
    assert [met for goal, _, met in page.goals(partly) if 'hangs' in goal or 'data lost' in goal] == [None, None]


def test_goals_of_parts_that_were_not_run_are_not_judged():
    assert command.verdict(results()) == 'every goal is met'
    some = results()
    some['parts'] = {name: some['parts'][name] for name in ('payloads', 'annotations')}
    assert [met for _, _, met in page.goals(some)] == [None] * 5 + [True, None, True, None, None, None, None]
    text = command.verdict(some)
    assert text.startswith('no goal is missed by the parts that were run; 10 of 12 goals are not judged, as parts were')
    assert 'not run: soak,' in text and 'payloads' not in text
    assert '| data lost: 0 | 0 in 2 of 13 parts | not judged |' in page.page(some)
    some['parts']['payloads']['counts']['code run'] = 1
    assert [met for _, _, met in page.goals(some)].count(False) == 1
    assert command.verdict(some).startswith('goals not met: code run from files: 0; 9 of 12 goals are not judged')


def test_the_page_names_what_went_wrong():
    found = results(settings_traceback=7)
    kind = dict(outcome='traceback', example='a=|1`', detail='KeyError: <x>', times=7)
    found['parts']['settings']['wrong'] = [kind]
    text = page.page(found)
    assert '| tracebacks in settings: < 5 % | 7.0% | **no** |' in text
    assert "| traceback | 7 | `a=/1'` | `KeyError: <x>` |" in text


def test_the_published_page_is_that_of_its_results():
    folder = Path(__file__).resolve().parents[2] / 'docs'
    text = page.page(json.loads((folder / 'reliability.json').read_text()))
    assert (folder / 'reliability.md').read_text() == text, 'run python tools/torture.py --page'


def test_a_shortened_run_says_so():
    text = ' '.join(page.page(results()).split())
    assert (
        '**A shortened run**: 1300 attempts in 1 of 38 minutes, 2 at a time; load average of the machine up to 7.'
        in text
    )
    whole = results()
    for part in whole['parts'].values():
        part['environment']['minutes'] = page.WHOLE_RUN
    text = page.page(whole)
    assert 'repeated' not in text and 'had gone wrong' not in text
    kind = dict(outcome='traceback', example='a name', detail='KeyError', times=2)
    whole['parts']['folders'] |= dict(
        before=[kind], environment=dict(whole['parts']['folders']['environment'], commit='1')
    )
    repeated = page.page(whole)
    assert '1300 attempts in 0 minutes of work (a whole run: 76), in 2 runs of some' in ' '.join(repeated.split())
    assert '## What had gone wrong' in repeated and '| traceback | 2 | `a name` | `KeyError` |' in repeated
    assert 'shortened' not in text and 'A whole run: 1300 attempts in 38 of 38 minutes, 2 at a time' in text


def test_more_attempts_of_the_same_code_are_added():
    first, second = (results(kills_traceback=1)['parts']['kills'] for _ in range(2))
    assert not command.can_join(first, second), 'the same seed: the same attempts'
    second['environment']['seed'] = 1
    assert command.can_join(first, second) and not command.can_join({}, second)
    both = command.join(dict(first, note='why'), second)
    assert (both['tried'], both['seconds'], both['counts']['traceback'], both['note']) == (200, 2, 2, 'why')
    assert (both['environment']['seed'], both['environment']['minutes']) == ('0, 1', 2)
    assert not command.can_join(both, second)
    second['environment']['commit'] = '1' * 40
    assert not command.can_join(first, second)


def test_two_jobs_share_the_parts():
    one, two = command.divide(list(command.SHARES), 2)
    assert sorted(one + two) == sorted(command.SHARES)
    first, second = (sum(command.SHARES[part] for part in job) for job in (one, two))
    assert abs(first - second) <= 4
    assert command.divide(['kills'], 2) == [['kills']]
    assert command.divide(list(command.SHARES), 1) == [list(command.SHARES)]


def test_equal_kinds_are_counted_together():
    same = [Result(str(number), 'traceback', 'KeyError: 1', 0.1) for number in range(3)]
    found = command.summarise([*same, Result('x', 'survived', '', 0.1)], 1)
    assert found['tried'] == 4 and [kind['times'] for kind in found['wrong']] == [3]


@pytest.mark.slow
def test_a_rehearsal_of_every_part(tmp_path, source_environment, root):
    """One attempt of each, and a soak of five steps: what the harness itself does not know ends in a traceback."""
    import subprocess

    call = [sys.executable, str(root / 'tools/torture.py'), '--most', '1', '--soak-steps', '5', '--minutes', '0.1']
    done = subprocess.run(
        [*call, '--out', str(tmp_path / 'found.json')],
        env=source_environment,
        capture_output=True,
        text=True,
        timeout=900,
    )
    found = json.loads((tmp_path / 'found.json').read_text())['parts']
    assert set(found) == set(command.SHARES) == set(page.WHAT), done.stderr[-3000:]
    for name, part in found.items():
        good = part['counts']['survived'] + part['counts']['clear error']
        assert part['tried'] == good == (2 if name == 'soak' else 1), (name, part)
    assert (tmp_path / 'found.md').read_text().startswith('# Reliability')
