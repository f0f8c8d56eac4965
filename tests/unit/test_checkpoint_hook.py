"""Our hooks, on a toy model: the content of checkpoints, which are kept, and the checks before training."""

from __future__ import annotations

import json
import os
import random
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.hooks import Hook
from toy_runner import ScriptedMetric, Toy, make_runner, names

from mmcondetr.checkpoints.files import load_file
from mmcondetr.datasets.random_state import get_random_state, seeded, set_random_state
from mmcondetr.engine.saving import AtomicBackend
from mmcondetr.errors import NonFiniteLossError, UserError


def best(folder: Path) -> list[str]:
    return [name for name in names(folder) if name.startswith('best')]


def test_a_state_put_back_gives_the_same_numbers():
    def draw() -> tuple:
        return random.random(), random.gauss(0, 1), np.random.rand(), np.random.randn(), torch.rand(1).item()

    draw()  # leaves the second number of a Gaussian pair behind, which is state, too
    state = get_random_state()
    first = draw()
    set_random_state(state)
    assert draw() == first != draw()


def test_a_state_survives_a_checkpoint_file(tmp_path):
    np.random.randn(), random.gauss(0, 1)
    torch.save(dict(state=get_random_state()), tmp_path / 'a.pth')
    first = random.gauss(0, 1), np.random.randn(), torch.rand(1)
    set_random_state(load_file(tmp_path / 'a.pth')['state'])
    assert (random.gauss(0, 1), np.random.randn(), torch.rand(1)) == first


def test_seeded_lends_the_generators():
    def draw() -> tuple:
        return random.random(), np.random.rand(), torch.rand(1).item()

    state = get_random_state()
    expected = draw()
    set_random_state(state)
    drawn = []
    for numbers in ((1, 2, 3), (1, 2, 3), (1, 2, 4), (1, 3, 2)):
        with seeded(*numbers):
            drawn.append(draw())
    assert drawn[0] == drawn[1] and len(set(drawn)) == 3
    assert draw() == expected, 'outside nothing has changed'


def test_kept_and_latest(tmp_path):
    make_runner(tmp_path, epochs=4, max_keep_ckpts=2).train()
    assert [name for name in names(tmp_path) if name.endswith('.pth')] == ['epoch_3.pth', 'epoch_4.pth']
    assert (tmp_path / 'last_checkpoint').read_text() == str(tmp_path / 'epoch_4.pth')
    assert load_file(tmp_path / 'epoch_4.pth')['message_hub']['runtime_info']['keep_ckpt_ids'] == [3, 4]


def test_the_former_goes_only_after_the_new_one_is_there(tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr(
        AtomicBackend,
        'remove',
        lambda self, path, real=AtomicBackend.remove: (
            seen.append((Path(path).name, names(tmp_path))),
            real(self, path),
        ),
    )
    make_runner(tmp_path, epochs=3, max_keep_ckpts=1).train()
    assert [name for name, _ in seen] == ['epoch_1.pth', 'epoch_2.pth']
    for number, (_, present) in enumerate(seen):
        assert f'epoch_{number + 1}.pth' in present and f'epoch_{number + 2}.pth' in present


def test_the_former_best_goes_only_after_the_new_one_is_there(tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr(
        AtomicBackend,
        'remove',
        lambda self, path, real=AtomicBackend.remove: (
            seen.append((Path(path).name, names(tmp_path))),
            real(self, path),
        ),
    )
    runner = make_runner(tmp_path, epochs=4, measures=(0.1, 0.3, 0.2, 0.5), save_best='AP', rule='greater')
    runner.train()
    assert [name for name, _ in seen] == ['best_AP_epoch_1.pth', 'best_AP_epoch_2.pth']
    assert 'best_AP_epoch_2.pth' in seen[0][1] and 'best_AP_epoch_4.pth' in seen[1][1]
    assert best(tmp_path) == ['best_AP_epoch_4.pth']
    assert runner.message_hub.get_info('best_score') == 0.5
    noted = load_file(tmp_path / 'epoch_4.pth')['message_hub']['runtime_info']['best_ckpt']
    assert noted == str(tmp_path / 'best_AP_epoch_4.pth')


@pytest.mark.parametrize('epochs', [2, 3])
@pytest.mark.parametrize('measures', [(), (0.1, 0.2, 0.3)])
def test_as_many_checkpoints_are_kept_as_asked_for(tmp_path, epochs, measures):
    """mmengine writes the step of a new best once more, which must not count as another step."""
    best_too = dict(save_best='AP', rule='greater') if measures else {}
    make_runner(tmp_path, epochs=epochs, measures=measures, max_keep_ckpts=epochs, **best_too).train()
    steps = list(range(1, epochs + 1))
    assert [name for name in names(tmp_path) if name.startswith('epoch_')] == [f'epoch_{step}.pth' for step in steps]
    assert load_file(tmp_path / f'epoch_{epochs}.pth')['message_hub']['runtime_info']['keep_ckpt_ids'] == steps


def test_best_of_several_measures(tmp_path, monkeypatch):
    monkeypatch.setattr(ScriptedMetric, 'compute_metrics', lambda self, results: self.remaining.pop(0))
    measures = [dict(AP=0.2, AR=0.1), dict(AP=0.1, AR=0.3), dict(AP=0.3, AR=0.2)]
    make_runner(tmp_path, epochs=3, measures=measures, save_best=['AP', 'AR'], rule='greater').train()
    assert best(tmp_path) == ['best_AP_epoch_3.pth', 'best_AR_epoch_2.pth']


def test_validation_does_not_change_training(tmp_path):
    drawn = []
    for measures in ((), (0.1, 0.2, 0.3)):
        model = Toy()
        make_runner(tmp_path / str(len(measures)), epochs=3, model=model, measures=measures).train()
        drawn.append(model.drawn)
    assert drawn[0] == drawn[1] and len(set(drawn[0])) == 6


def test_resuming_goes_on_with_the_same_numbers(tmp_path):
    whole, first, second = Toy(), Toy(), Toy()
    make_runner(tmp_path / 'whole', epochs=4, model=whole, measures=(1, 2, 3, 4)).train()
    make_runner(tmp_path / 'broken', epochs=2, model=first, measures=(1, 2)).train()
    make_runner(tmp_path / 'broken', epochs=4, model=second, measures=(3, 4), resume=True).train()
    assert first.drawn + second.drawn == whole.drawn
    assert torch.equal(second.bbox_head.weight, whole.bbox_head.weight)


def test_resuming_without_random_states_warns(tmp_path, caplog):
    class Forget(Hook):
        priority = 'LOWEST'

        def before_save_checkpoint(self, runner, checkpoint) -> None:
            del checkpoint['random_state']

    make_runner(tmp_path, epochs=1, hooks=[Forget()]).train()
    runner = make_runner(tmp_path, epochs=2, resume=True)
    messages = []
    runner.logger.addFilter(lambda record: messages.append(record.getMessage()) or True)
    runner.logger.setLevel('WARNING')
    runner.train()
    assert any('has no random states' in message for message in messages)


@pytest.mark.parametrize('same', [True, False])
def test_resuming_says_which_schedule_goes_on(tmp_path, same):
    """mmengine loads the checkpoint's over that of the config, milestones and rate included."""

    def runner(epochs, milestone, lr, **arguments):
        schedule = [dict(type='MultiStepLR', milestones=[milestone], gamma=0.1, end=9)]
        made = make_runner(tmp_path, epochs=epochs, param_scheduler=schedule, **arguments)
        made.optim_wrapper['optimizer']['lr'] = lr
        return made

    runner(1, 1, 0.01).train()
    resumed = runner(2, *((1, 0.01) if same else (2, 0.02)), resume=True)
    messages = []
    resumed.logger.addFilter(lambda record: messages.append(record.getMessage()) or True)
    resumed.logger.setLevel('WARNING')
    resumed.train()
    said = [message for message in messages if 'those of the resumed checkpoint' in message]
    assert len(said) == (0 if same else 1)
    assert same or 'MultiStepLR.milestones [1] (config: [2]), SGD.lr 0.01 (config: 0.02). To train' in said[0]
    assert resumed.optim_wrapper.get_lr()['lr'] == [pytest.approx(0.001)]


def test_leftovers_are_removed_at_the_start(tmp_path):
    (tmp_path / '.epoch_1.pth.99.tmp').write_bytes(b'half')
    make_runner(tmp_path, epochs=1).train()
    assert not (tmp_path / '.epoch_1.pth.99.tmp').exists()


def test_weights_that_are_not_finite_do_not_replace_good_ones(tmp_path):
    class Spoil(Hook):
        def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None) -> None:
            if runner.epoch == 2:
                runner.model.bbox_head.bias.data.fill_(float('nan'))

    message = r'2 tensors of the model are NaN or infinite at iteration 6 \(bbox_head.weight, .*one is .*epoch_2.pth'
    with pytest.raises(NonFiniteLossError, match=message):
        make_runner(tmp_path, epochs=4, max_keep_ckpts=1, hooks=[Spoil()]).train()
    assert [name for name in names(tmp_path) if name.endswith('.pth')] == ['epoch_2.pth']
    assert load_file(tmp_path / 'epoch_2.pth')['state_dict']['bbox_head.bias'].isfinite().all()


@pytest.mark.parametrize('outputs', [2, 80])
def test_number_of_classes(tmp_path, outputs):
    hook = dict(type='mmcondetr.CheckClassesHook')
    make_runner(tmp_path, epochs=1, hooks=[hook]).train()
    runner = make_runner(tmp_path, epochs=1, model=Toy(num_classes=outputs), hooks=[hook])
    message = (
        rf'model.bbox_head.num_classes={outputs}, but train_dataloader.dataset.metainfo has 3 classes '
        r'\(a, b, c\). Set model.bbox_head.num_classes=3'
    )
    with pytest.raises(UserError, match=message):
        runner.train()
    assert not runner.model.drawn, 'before anything is trained'


def change_runtime_info(path: Path, other: dict | None = None, **values) -> None:
    checkpoint, values = load_file(path), {**(other or {}), **values}
    checkpoint['message_hub']['runtime_info'].update(values)
    checkpoint['message_hub']['resumed_keys'].update(dict.fromkeys(values, True))
    torch.save(checkpoint, path)


@pytest.mark.parametrize('kind', ['file', 'folder', 'neighbour'])
def test_a_checkpoint_cannot_have_anything_removed(tmp_path, kind):
    """mmengine removes what ``best_ckpt`` in the resumed checkpoint names."""
    make_runner(tmp_path / 'run', epochs=1, measures=(0.1,), save_best='AP', rule='greater').train()
    victim = tmp_path / 'run/notes.txt' if kind == 'neighbour' else tmp_path / 'victim'
    if kind == 'folder':
        victim.mkdir()
        (victim / 'thesis.tex').write_text('years of work')
    else:
        victim.write_text('years of work')
    change_runtime_info(tmp_path / 'run/epoch_1.pth', best_ckpt=str(victim), best_score=0.0)
    runner = make_runner(tmp_path / 'run', epochs=3, measures=(0.3, 0.5), save_best='AP', rule='greater', resume=True)
    runner.train()
    assert victim.exists() and (kind != 'folder' or (victim / 'thesis.tex').exists())
    assert 'best_AP_epoch_3.pth' in best(tmp_path / 'run')


def test_resuming_into_another_folder_leaves_both_alone(tmp_path):
    arguments = dict(save_best='AP', rule='greater', max_keep_ckpts=1)
    make_runner(tmp_path / 'a', epochs=2, measures=(0.1, 0.2), **arguments).train()
    make_runner(tmp_path / 'b', epochs=2, measures=(0.1, 0.2), save_best='AP', rule='greater').train()
    before = names(tmp_path / 'a'), names(tmp_path / 'b')
    change_runtime_info(tmp_path / 'a/epoch_2.pth', keep_ckpt_ids=[1, 2])
    runner = make_runner(tmp_path / 'b', epochs=4, measures=(0.3, 0.4), resume=True, **arguments)
    runner._load_from = str(tmp_path / 'a/epoch_2.pth')
    runner.train()
    assert names(tmp_path / 'a') == before[0]
    assert set(before[1]) <= set(names(tmp_path / 'b')), 'of another run in the same folder'
    assert 'epoch_3.pth' not in names(tmp_path / 'b') and 'epoch_4.pth' in names(tmp_path / 'b')
    assert [name for name in best(tmp_path / 'b') if 'epoch_2' not in name] == ['best_AP_epoch_4.pth']


def test_resuming_in_place_goes_on_removing_what_the_run_wrote(tmp_path):
    arguments = dict(save_best='AP', rule='greater')
    make_runner(tmp_path, epochs=3, measures=(0.1, 0.3, 0.2), max_keep_ckpts=3, **arguments).train()
    make_runner(tmp_path, epochs=4, measures=(0.4,), max_keep_ckpts=2, resume=True, **arguments).train()
    kept = [name for name in names(tmp_path) if name.endswith('.pth')]
    assert kept == ['best_AP_epoch_4.pth', 'epoch_3.pth', 'epoch_4.pth']


def test_a_fresh_run_in_a_used_folder_removes_nothing_of_the_former(tmp_path):
    make_runner(tmp_path, epochs=4, max_keep_ckpts=4).train()
    make_runner(tmp_path, epochs=2, max_keep_ckpts=1).train()
    kept = [name for name in names(tmp_path) if name.endswith('.pth')]
    assert kept == ['epoch_2.pth', 'epoch_3.pth', 'epoch_4.pth']


@pytest.mark.parametrize('values', [dict(keep_ckpt_ids='12'), dict(keep_ckpt_ids=['../x', None]), dict(best_ckpt=3)])
def test_what_a_checkpoint_says_of_older_ones_may_be_of_any_type(tmp_path, values):
    make_runner(tmp_path, epochs=1, max_keep_ckpts=1).train()
    change_runtime_info(tmp_path / 'epoch_1.pth', **values)
    arguments = dict(max_keep_ckpts=1, save_best='AP', rule='greater')
    make_runner(tmp_path, epochs=2, measures=(0.2,), resume=True, **arguments).train()
    assert 'epoch_2.pth' in names(tmp_path)


@pytest.mark.skipif(os.name != 'posix', reason='about symbolic links, too')
@pytest.mark.parametrize('kind', ['folder above', 'folder', 'file', 'link to a folder', 'absolute'])
def test_a_strangers_folder_with_a_list_that_matches_has_nothing_removed(tmp_path, kind):
    """Its list of files names what is to be removed, and the checkpoint in it has the same run and the same names."""
    work = tmp_path / 'home/run'
    make_runner(work, epochs=1, measures=(0.1,), save_best='AP', rule='greater', max_keep_ckpts=1).train()
    (tmp_path / 'home/thesis.tex').write_text('years of work')
    (work / 'notes').mkdir()
    for path in (work / 'notes.txt', work / 'notes/thesis.tex'):
        path.write_text('years of work')
    (work / 'best_AP_epoch_7.pth').symlink_to(tmp_path / 'home')
    name = {'folder above': '..', 'folder': 'notes', 'file': 'notes.txt', 'link to a folder': 'best_AP_epoch_7.pth'}
    victim = name.get(kind, str(tmp_path / 'home'))
    listed = json.loads((work / '.checkpoints.json').read_text())
    listed['names'] += [victim, '.', '../thesis.tex', None, [1], 7, 'best_../x_epoch_1.pth', 'epoch_1.pth\n']
    (work / '.checkpoints.json').write_text(json.dumps(listed))
    change_runtime_info(work / 'epoch_1.pth', best_ckpt=f'x/{victim}', best_score=0.0, keep_ckpt_ids=[10**5000, -1, 1])
    make_runner(
        work, epochs=3, measures=(0.3, 0.5), save_best='AP', rule='greater', max_keep_ckpts=1, resume=True
    ).train()
    for path in (tmp_path / 'home/thesis.tex', work / 'notes/thesis.tex', work / 'notes.txt'):
        assert path.read_text() == 'years of work'
    assert (work / 'best_AP_epoch_7.pth').is_symlink()
    assert 'best_AP_epoch_3.pth' in names(work) and 'epoch_1.pth' not in names(work), 'its own are removed as before'


def test_the_resumed_checkpoint_is_not_removed_before_there_is_another(tmp_path):
    make_runner(tmp_path, epochs=3, max_keep_ckpts=3).train()
    change_runtime_info(tmp_path / 'epoch_3.pth', keep_ckpt_ids=[3, 3, 1, 2], best_ckpt='epoch_3.pth')
    make_runner(tmp_path, epochs=3, max_keep_ckpts=1, resume=True).train()
    assert [name for name in names(tmp_path) if name.endswith('.pth')] == ['epoch_3.pth']


def test_what_is_listed_but_is_no_file_any_more_stays(tmp_path):
    make_runner(tmp_path, epochs=2, max_keep_ckpts=2).train()
    (tmp_path / 'epoch_1.pth').unlink()
    (tmp_path / 'epoch_1.pth').mkdir()
    (tmp_path / '.epoch_1.pth.99999999.tmp').mkdir()
    make_runner(tmp_path, epochs=3, max_keep_ckpts=1, resume=True).train()
    assert (tmp_path / 'epoch_1.pth').is_dir() and (tmp_path / '.epoch_1.pth.99999999.tmp').is_dir()
    assert [name for name in names(tmp_path) if name.endswith('.pth')] == ['epoch_3.pth']


@pytest.mark.parametrize(
    'values', [dict(best_score=float('nan')), dict(best_score=10**400), {7: 'x'}, dict(last_ckpt=3, run=torch.zeros(2))]
)
def test_what_resuming_cannot_use_is_one_line_or_ignored(tmp_path, values):
    arguments = dict(save_best='AP', rule='greater')
    make_runner(tmp_path, epochs=1, measures=(0.1,), **arguments).train()
    change_runtime_info(tmp_path / 'epoch_1.pth', values)
    (tmp_path / '.checkpoints.json').write_text('{"run": 5}')
    runner = make_runner(tmp_path, epochs=2, measures=(0.2,), resume=True, **arguments)
    if 'last_ckpt' in values:
        runner.train()
        assert 'epoch_2.pth' in names(tmp_path)
    else:
        with pytest.raises(UserError, match=r'--resume: .*message_hub'):
            runner.train()


@pytest.mark.parametrize('name', ['.checkpoints.json', 'last_checkpoint'])
def test_a_folder_in_place_of_a_file_is_one_line(tmp_path, name):
    (tmp_path / name).mkdir()
    with pytest.raises(UserError, match=rf'{name}\' is a folder'):
        make_runner(tmp_path, epochs=1).train()


@pytest.mark.skipif(os.name != 'posix', reason='about pipes')
def test_a_pipe_in_place_of_the_list_is_not_read(tmp_path):
    make_runner(tmp_path, epochs=1, max_keep_ckpts=1).train()
    (tmp_path / '.checkpoints.json').unlink()
    os.mkfifo(tmp_path / '.checkpoints.json')  # reading it would wait for ever
    make_runner(tmp_path, epochs=2, max_keep_ckpts=1, resume=True).train()
    assert 'epoch_2.pth' in names(tmp_path)
