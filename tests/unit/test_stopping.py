"""SIGTERM, a second training in the folder, validation missed by a killed run: on the toy, in this process."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading

import pytest
import torch
from mmengine.hooks import Hook
from toy_runner import Toy, make_runner, names

from mmcondetr.checkpoints.files import load_file
from mmcondetr.engine import stopping
from mmcondetr.engine.checkpoint_hook import STOPPED
from mmcondetr.engine.folder_lock import NAME, lock_folder, unlock_folder
from mmcondetr.errors import Stopped, UserError


class Send(Hook):
    """Sends a signal to this process after a training iteration, or a validation iteration."""

    def __init__(self, iteration: int, validating: bool = False, number: int = signal.SIGTERM) -> None:
        self.iteration, self.validating, self.number = iteration, validating, number

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None) -> None:
        if runner.iter + 1 == self.iteration and not self.validating:
            os.kill(os.getpid(), self.number)

    def before_val(self, runner) -> None:
        if runner.iter == self.iteration and self.validating:
            os.kill(os.getpid(), self.number)


@pytest.mark.parametrize(('iteration', 'file'), [(3, STOPPED), (4, 'epoch_2.pth'), (5, STOPPED)])
def test_sigterm_saves_and_training_goes_on_as_if_nothing_had_been(tmp_path, iteration, file):
    sampler = dict(sampler=dict(type='mmcondetr.EpochSampler', shuffle=True))
    whole, first, second = Toy(), Toy(), Toy()
    make_runner(tmp_path / 'whole', epochs=4, model=whole, loader=sampler).train()
    runner = make_runner(tmp_path / 'run', epochs=4, model=first, hooks=[Send(iteration)], loader=sampler)
    with stopping.stoppable(), pytest.raises(Stopped, match=f"iteration {iteration} is in '.*{file}'"):
        runner.train()
    assert (tmp_path / 'run/last_checkpoint').read_text().endswith(file)
    make_runner(tmp_path / 'run', epochs=4, model=second, resume=True, loader=sampler).train()
    assert len(first.drawn) == iteration and first.drawn + second.drawn == whole.drawn
    assert torch.equal(second.bbox_head.weight, whole.bbox_head.weight)
    assert STOPPED not in names(tmp_path / 'run'), 'the next checkpoint takes its place'
    assert load_file(tmp_path / 'run/epoch_4.pth')['meta']['iter'] == 8


def test_an_epoch_that_cannot_be_gone_on_with_begins_anew_and_says_so(tmp_path):
    """torch's own sampler cannot start in the middle."""
    with stopping.stoppable(), pytest.raises(Stopped):
        make_runner(tmp_path, epochs=2, hooks=[Send(1)]).train()
    model = Toy()
    runner = make_runner(tmp_path, epochs=2, model=model, resume=True)
    messages = []
    runner.logger.addFilter(lambda record: messages.append(record.getMessage()) or True)
    runner.logger.setLevel('WARNING')
    runner.train()
    assert any('the epoch is restarted' in message for message in messages) and len(model.drawn) == 4


def test_sigterm_in_validation_is_made_up_for(tmp_path):
    arguments = dict(save_best='AP', rule='greater')
    runner = make_runner(tmp_path, epochs=2, measures=(0.1, 0.2), hooks=[Send(4, validating=True)], **arguments)
    with stopping.stoppable(), pytest.raises(Stopped, match='epoch_2.pth'):
        runner.train()
    assert 'best_AP_epoch_1.pth' in names(tmp_path)
    make_runner(tmp_path, epochs=2, measures=(0.2,), resume=True, **arguments).train()
    assert 'best_AP_epoch_2.pth' in names(tmp_path), 'the last epoch is validated, and is the best'


class Break(Hook):
    """Ends as a kill does, before the validation of an epoch, or after one."""

    def __init__(self, iteration: int) -> None:
        self.iteration = iteration

    def before_val(self, runner) -> None:
        if runner.iter == self.iteration:
            raise ZeroDivisionError


@pytest.mark.parametrize('epochs', [1, 2])
def test_what_a_killed_run_did_not_validate_is_validated(tmp_path, epochs):
    arguments = dict(save_best='AP', rule='greater')
    runner = make_runner(tmp_path, epochs=epochs, measures=(0.1,), hooks=[Break(2 * epochs)], **arguments)
    with pytest.raises(ZeroDivisionError):
        runner.train()
    runner = make_runner(tmp_path, epochs=3, measures=(0.5, *[0.2] * (3 - epochs)), resume=True, **arguments)
    runner.train()
    assert f'best_AP_epoch_{epochs}.pth' in names(tmp_path)
    assert runner.val_evaluator.metrics[0].remaining == []


def test_what_was_validated_is_not_validated_again(tmp_path):
    make_runner(tmp_path, epochs=2, measures=(0.1, 0.2)).train()
    runner = make_runner(tmp_path, epochs=3, measures=(0.3, 0.4), resume=True)
    runner.train()
    assert runner.val_evaluator.metrics[0].remaining == [0.4]


def test_a_second_sigterm_ends_at_once():
    program = """
import os, signal
from mmcondetr.engine.stopping import stoppable
with stoppable():
    os.kill(os.getpid(), signal.SIGTERM)
    print('goes on', flush=True)
    os.kill(os.getpid(), signal.SIGTERM)
    print('too far', flush=True)
"""
    ended = subprocess.run([sys.executable, '-c', program], capture_output=True, text=True)
    assert ended.returncode == -signal.SIGTERM and ended.stdout == 'goes on\n'


def test_a_loader_that_ends_with_sigterm_is_no_error(monkeypatch):
    """`timeout` and Slurm end training and the loader's workers at once."""
    unraisable = []
    monkeypatch.setattr(sys, 'unraisablehook', unraisable.append)
    former = signal.signal(signal.SIGCHLD, lambda number, frame: unraisable.append('the handler of torch'))
    both = {signal.SIGTERM, signal.SIGCHLD}
    try:
        with stopping.stoppable():
            signal.pthread_sigmask(signal.SIG_BLOCK, both)
            for number in both:  # pending until both are let through, whatever other threads there are
                signal.pthread_kill(threading.get_ident(), number)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, both)
            assert stopping.asked()
    finally:
        signal.signal(signal.SIGCHLD, former)
    assert unraisable == []


def test_outside_of_training_sigterm_is_what_it_was():
    before = signal.getsignal(signal.SIGTERM)
    with stopping.stoppable():
        assert signal.getsignal(signal.SIGTERM) is not before
    assert signal.getsignal(signal.SIGTERM) is before and not stopping.asked()


def test_ctrl_c_while_a_file_is_written_comes_afterwards():
    written = []
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored where the tests run in the background
    try:
        with pytest.raises(KeyboardInterrupt):
            with stopping.uninterrupted():
                os.kill(os.getpid(), signal.SIGINT)
                written.append('the whole file')
        assert written and signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, before)


HOLDER = """
import sys, time
from mmcondetr.engine.folder_lock import lock_folder
lock_folder(sys.argv[1])
print('held', flush=True)
sys.stdin.read()
"""


def test_two_trainings_in_one_folder(tmp_path):
    (tmp_path / 'epoch_7.pth').write_text('of the other')
    holder = subprocess.Popen(
        [sys.executable, '-c', HOLDER, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        assert holder.stdout.readline() == 'held\n'
        with pytest.raises(UserError, match=f'work_dir .*another training is running in it .*{NAME}'):
            make_runner(tmp_path, epochs=1).train()
    finally:
        holder.communicate()
    make_runner(tmp_path, epochs=1).train()  # however the other ended


def test_a_process_does_not_lock_itself_out(tmp_path):
    with pytest.raises(ZeroDivisionError):
        make_runner(tmp_path, epochs=1, measures=(1,), hooks=[Break(2)]).train()
    make_runner(tmp_path, epochs=1).train()
    lock_folder(tmp_path)
    unlock_folder(tmp_path)


def test_an_epoch_without_a_step(tmp_path):
    message = (
        r'train_dataloader: 4 images do not fill a batch of 5, and drop_last .* Set a smaller batch_size, or drop_last'
    )
    with pytest.raises(UserError, match=message):
        make_runner(tmp_path, epochs=1, loader=dict(batch_size=5, drop_last=True)).train()
    assert not any(name.endswith('.pth') for name in names(tmp_path))
