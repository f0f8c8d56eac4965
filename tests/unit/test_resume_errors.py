"""Resuming from a file that is not a training state, or a damaged one: one line, with the alternative."""

from __future__ import annotations

import math
from collections import Counter

import pytest
import torch
from toy_runner import make_runner

from mmcondetr.checkpoints.files import load_file
from mmcondetr.compat import resume_errors
from mmcondetr.errors import UserError


@pytest.fixture(scope='module')
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp('trained')
    make_runner(folder, epochs=1).train()
    return folder


@pytest.mark.parametrize('kind', ['weights', 'with-meta', 'no-hub'])
def test_released_weights_are_for_load_from(tmp_path, trained, kind):
    checkpoint = load_file(trained / 'epoch_1.pth')
    parts = {'weights': ('state_dict',), 'with-meta': ('state_dict', 'message_hub'), 'no-hub': ('state_dict', 'meta')}
    released = {part: checkpoint[part] for part in parts[kind]}
    if kind == 'with-meta':
        released['meta'] = dict(dataset_meta=dict(classes=('a',)))
    torch.save(released, tmp_path / 'released.pth')
    runner = make_runner(tmp_path / 'run', epochs=2, resume=True)
    runner._load_from = str(tmp_path / 'released.pth')
    with pytest.raises(UserError, match=r'released.pth. holds weights, .* pass it as load_from .*without --resume'):
        runner.train()


def change(checkpoint: dict, path: str, value) -> None:
    *parts, last = path.split('.')
    for part in parts:
        checkpoint = checkpoint[int(part) if part.isdigit() else part]
    if value is KeyError:
        del checkpoint[last]
    else:
        checkpoint[int(last) if last.isdigit() else last] = value


DAMAGE = [
    ('meta.epoch', '1'),
    ('meta.iter', -3),
    ('meta.iter', KeyError),
    ('meta.iter', 10**12),
    ('meta.iter', 0),
    ('message_hub', [1]),
    ('message_hub.runtime_info', KeyError),
    ('message_hub.runtime_info', 5),
    ('optimizer', [1]),
    ('optimizer.param_groups', {}),
    ('optimizer.param_groups', KeyError),
    ('optimizer.param_groups.0.params', [0]),
    ('optimizer.param_groups.0.lr', 'fast'),
    ('optimizer.param_groups.0.momentum', [0.9]),
    ('optimizer.param_groups.0.differentiable', True),
    ('optimizer.state', {0: dict(momentum_buffer=torch.zeros(7))}),
    ('optimizer.state', {0: dict(exp_avg=torch.zeros(1, 1)), 1: dict(exp_avg=0)}),
    ('optimizer.state', {0: dict(exp_avg=torch.zeros(1, 1)), 1: dict(exp_avg=torch.tensor(0.0))}),
    ('optimizer.state', {0: dict(exp_avg=[1]), 1: dict(exp_avg=torch.zeros(1))}),
    ('optimizer.state', {0: dict(step=-1), 1: dict(step=-1)}),
    ('optimizer.state', {0: dict(step='x')}),
    ('message_hub.resumed_keys.iter', ''),
    ('message_hub.resumed_keys.iter', KeyError),
    ('random_state', 'x'),
    ('random_state.ranks', [None]),
    ('random_state.ranks.0', dict(torch=torch.zeros(3))),
    ('random_state.ranks.0.numpy.position', 2**31 - 1),
    ('random_state.ranks.0.numpy.position', 2**40),
    ('message_hub.runtime_info.best_score', 'high'),
]


@pytest.mark.parametrize('path, value', DAMAGE, ids=[f'{path}={value!r:.20}' for path, value in DAMAGE])
def test_a_damaged_training_state_is_one_line(tmp_path, trained, path, value):
    checkpoint = load_file(trained / 'epoch_1.pth')
    change(checkpoint, path, value)
    torch.save(checkpoint, tmp_path / 'damaged.pth')
    runner = make_runner(tmp_path / 'run', epochs=2, resume=True)
    runner._load_from = str(tmp_path / 'damaged.pth')
    with pytest.raises(UserError, match='^--resume: .*damaged.* load_from, without --resume'):
        runner.train()


@pytest.mark.parametrize('times', [0.5, 100])
def test_a_run_of_another_batch_size_resumes(tmp_path, trained, times):
    checkpoint = load_file(trained / 'epoch_1.pth')
    checkpoint['meta']['iter'] = int(checkpoint['meta']['iter'] * times)
    assert checkpoint['meta']['iter'] >= 1
    torch.save(checkpoint, tmp_path / 'other.pth')
    runner = make_runner(tmp_path / 'run', epochs=2, resume=True)
    runner._load_from = str(tmp_path / 'other.pth')
    runner.train()
    assert runner.epoch == 2


def test_an_error_of_training_itself_stays_what_it_is(tmp_path, trained):
    runner = make_runner(tmp_path / 'run', epochs=2, resume=True)
    runner._load_from = str(trained / 'epoch_1.pth')

    def fails(*_, **__):
        raise ZeroDivisionError('in the model')

    runner.model.train_step = fails
    with pytest.raises(ZeroDivisionError, match='in the model'):
        runner.train()


@pytest.mark.parametrize('name, value', [('last_step', 'last'), ('milestones', Counter({1: 10**10}))])
def test_a_schedule_of_the_wrong_types(tmp_path, name, value):
    schedule = [dict(type='MultiStepLR', milestones=[1])]
    make_runner(tmp_path / 'a', epochs=1, param_scheduler=schedule).train()
    checkpoint = load_file(tmp_path / 'a/epoch_1.pth')
    checkpoint['param_schedulers'][0][name] = value
    torch.save(checkpoint, tmp_path / 'damaged.pth')
    runner = make_runner(tmp_path / 'run', epochs=2, resume=True, param_scheduler=schedule)
    runner._load_from = str(tmp_path / 'damaged.pth')
    with pytest.raises(UserError, match=f'^--resume: .*damaged.*{name}'):
        runner.train()


@pytest.mark.parametrize('value, before, good', [(1e-3, 1e-4, True), (-1.0, 1e-4, False), (math.nan, 0.1, False)])
def test_settings_are_finite_and_rates_not_negative(value, before, good):
    assert resume_errors._alike(value, before) is good
    assert resume_errors._alike(torch.tensor(value), before) is good
