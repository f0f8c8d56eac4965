"""Checkpoints that survive a kill at any time, and from which training resumes bit for bit."""

from __future__ import annotations

import logging
import os.path
from collections import deque
from typing import Any

import torch
from mmengine.dist import all_gather_object, broadcast_object_list, get_rank, get_world_size, is_main_process
from mmengine.fileio import LocalBackend, get_file_backend
from mmengine.hooks import CheckpointHook as MMEngineCheckpointHook
from mmengine.logging import print_log
from mmengine.runner import IterBasedTrainLoop, Runner

from mmcondetr.datasets.random_state import get_random_state, set_random_state
from mmcondetr.engine import stopping
from mmcondetr.engine.folder_lock import lock_folder, unlock_folder
from mmcondetr.engine.resuming import (
    advance,
    advance_epoch,
    check_loader,
    drawing_sampler,
    training_settings,
    validation_is_due,
    warn_of_other_settings,
)
from mmcondetr.engine.same_model import check_same_model
from mmcondetr.engine.saving import check_finite
from mmcondetr.engine.written_files import STOPPED, WrittenFiles
from mmcondetr.errors import Stopped, UserError
from mmcondetr.registry import HOOKS
from mmcondetr.writing import is_regular_file, remove_leftovers, replacing

_PATHS = ('keep_ckpt_ids', 'best_ckpt', 'last_ckpt')
"""What a checkpoint says of files begins with one of these; resumed, it counts only as far as this run wrote them."""


@HOOKS.register_module()
class CheckpointHook(MMEngineCheckpointHook):
    """mmengine's CheckpointHook, with the same arguments, made safe and exact.

    * Checkpoints and ``last_checkpoint`` are written under a temporary name and renamed; older checkpoints and the
      former best are removed afterwards (mmengine removes them first).
    * A checkpoint's ``random_state`` contains the states of Python's, NumPy's and PyTorch's generators of every rank
      after the last training step. They are restored before the next step, whether the run continues or is resumed, so
      validation and building data loaders in between do not affect training.
    * Resuming an IterBasedTrainLoop does not reload the batches that were trained on.
    * Only checkpoints that this run wrote into its own folder are removed, whatever older ones the resumed file names;
      on a local disk only regular files: no folder, and nothing that a link leads to.
    * Only one training at a time can use a work directory.
    * If a run was killed before a validation that was due, it is done on resuming.
    * On SIGTERM ``mmcondetr train`` stops before its next step, with which a resumed run continues.

    Attributes:
        between_steps: whether no training step is in progress, so the state can be saved now.

    Raises:
        UserError: another training is running in the work directory; an epoch has no steps, or their number differs
            between processes; the resumed checkpoint is of another model.
        Stopped: training was asked to stop.
    """

    # Of mmengine's arguments these are named for their types, which check_config checks.
    def __init__(self, interval: int = -1, *, max_keep_ckpts: int = -1, save_begin: int = 0, **kwargs) -> None:
        super().__init__(interval, max_keep_ckpts=max_keep_ckpts, save_begin=save_begin, **kwargs)
        self._pending: dict | None = None  # random state to put back before the next training step
        self._saving: dict | None = None  # the random state for the checkpoint being written
        self._settings: dict[str, Any] = {}
        self._loaded: dict | None = None  # the random state in the resumed checkpoint
        self._skipped = self._batches = 0  # batches of the epoch: before resuming, and in total
        self._saved_at: int | None = None  # the iteration after which the latest checkpoint was written
        self._training = False
        self._shared_batches = 0  # validation batches that every process has
        self.between_steps = True
        self._written = WrittenFiles(None, None)

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        check_same_model(runner, checkpoint)
        self._loaded = checkpoint.get('random_state')
        self._settings = training_settings(runner)  # of the config: the checkpoint's replace them afterwards

    def before_train(self, runner: Runner) -> None:
        if is_main_process():
            lock_folder(runner.work_dir)
        check_loader(runner.train_dataloader)
        info = runner.message_hub.runtime_info  # mmengine takes paths from it, and removes some files immediately
        older = {key: info.pop(key) for key in list(info) if key.startswith(_PATHS)}
        super().before_train(runner)
        local = type(self.file_backend) is LocalBackend
        if is_main_process():
            run = info.get('run') if runner.iter > 0 else None
            self._written = WrittenFiles(self.out_dir if local else None, run, self.filename_tmpl)
            runner.message_hub.update_info('run', self._written.run)
            if runner.val_loop is None:
                self._written.validated = None
        self._take_over(runner, older)
        if local:
            self.backend_args = dict(backend='mmcondetr_atomic')
            self.file_backend = get_file_backend(self.out_dir, backend_args=self.backend_args)
            if is_main_process():
                remove_leftovers(self.out_dir)
        if runner.train_dataloader.generator is None:  # otherwise each pass draws from training's generator
            runner.train_dataloader.generator = torch.Generator().manual_seed(runner.seed or 0)
        if runner.iter > 0:
            self._resume(runner)
        self._keep_state()
        self._training = True
        validated = self._written.validated
        owed = [not self._batches and validated is not None and validated < runner.iter and validation_is_due(runner)]
        broadcast_object_list(owed)
        if owed[0]:
            print_log(f'Validating after iteration {runner.iter}, which the interrupted run did not do.', 'current')
            runner.val_loop.run()

    def after_train(self, runner: Runner) -> None:
        super().after_train(runner)
        self._training = False
        if is_main_process():
            unlock_folder(runner.work_dir)

    def _take_over(self, runner: Runner, older: dict[str, Any]) -> None:
        """Keep track of the older checkpoints that the resumed one names, if this run wrote them."""
        for key, path in older.items():
            name = os.path.basename(path) if isinstance(path, str) else ''
            if not key.startswith('best_ckpt') or not name.startswith('best_') or name not in self._written:
                continue
            path, measure = self.file_backend.join_path(self.out_dir, name), key[len('best_ckpt_') :]
            runner.message_hub.update_info(key, path)
            if key == 'best_ckpt' and hasattr(self, 'best_ckpt_path'):
                self.best_ckpt_path = path
            elif measure in getattr(self, 'best_ckpt_path_dict', {}):
                self.best_ckpt_path_dict[measure] = path
        if self.max_keep_ckpts > 0:
            steps = older.get('keep_ckpt_ids')
            done = runner.epoch if self.by_epoch else runner.iter
            steps = [step for step in steps if type(step) is int] if isinstance(steps, list) else []
            steps = sorted({step for step in steps if 0 < step <= done})  # the resumed one is the last to be removed
            steps = [step for step in steps if self.filename_tmpl.format(step) in self._written]
            self.keep_ckpt_ids = deque(steps[-self.max_keep_ckpts :], self.max_keep_ckpts)
            runner.message_hub.update_info('keep_ckpt_ids', list(self.keep_ckpt_ids))
            for step in steps[: -self.max_keep_ckpts]:
                self._remove(self.filename_tmpl.format(step))

    def _resume(self, runner: Runner) -> None:
        loaded = self._loaded
        try:
            fitting = loaded is not None and len(loaded['ranks']) == get_world_size()
            if fitting:
                self._pending, now = loaded['ranks'][get_rank()], get_random_state()
                set_random_state(self._pending)  # restored now, while an error can name the checkpoint
                set_random_state(now)
                seed = loaded.get('sampler_seed')
                if seed is not None and not (type(seed) is int and 0 <= seed < 2**32):
                    raise ValueError(f'sampler_seed is {seed!r:.40}')
        except (LookupError, TypeError, ValueError, RuntimeError, AttributeError) as error:
            raise UserError(
                f'--resume: random_state in the checkpoint is damaged ({type(error).__name__}: {error}). To start from '
                'its weights alone, pass it as load_from, without --resume.'
            ) from error
        if not fitting:
            print_log(
                'The checkpoint has no random states for this number of processes: training continues, but not bit for '
                'bit as it would have without the interruption.',
                'current',
                logging.WARNING,
            )
        sampler = drawing_sampler(runner.train_dataloader)
        if fitting and hasattr(sampler, 'seed') and type(loaded.get('sampler_seed')) is int:
            sampler.seed = loaded['sampler_seed']  # without a seed in the config, the sampler has drawn a new one
        warn_of_other_settings(self._settings, training_settings(runner))
        self._loaded = None
        if isinstance(runner.train_loop, IterBasedTrainLoop):
            advance(runner.train_loop)
        elif loaded is not None and loaded.get('batches'):
            self._skipped = self._batches = advance_epoch(
                runner.train_dataloader, loaded['batches'] if fitting else None
            )

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None) -> None:
        if stopping.all_asked(runner.iter):
            self.stop(runner)
        if self._pending is not None:
            set_random_state(self._pending)
            self._pending = None
        self.between_steps = False

    def after_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
        self._batches = self._skipped + batch_idx + 1
        super().after_train_iter(runner, batch_idx, data_batch, outputs)
        self.between_steps = True

    def after_train_epoch(self, runner: Runner) -> None:
        self._skipped = self._batches = 0
        self._keep_state()
        super().after_train_epoch(runner)

    def before_val(self, runner: Runner) -> None:
        self._keep_state()
        if self._training:  # the processes' shares of the images may differ by one
            self._shared_batches = stopping.fewest(len(runner.val_dataloader))

    def before_val_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None) -> None:
        if self._training and batch_idx < self._shared_batches and stopping.all_asked(batch_idx):
            self.stop(runner)

    def after_val_epoch(self, runner: Runner, metrics: dict | None = None) -> None:
        super().after_val_epoch(runner, metrics)
        self._written.note_validation(runner.iter)

    def stop(self, runner: Runner) -> None:
        """Save between two steps and end training.

        Raises:
            Stopped: always.
        """
        if self._saved_at != runner.iter:
            self._write(runner, STOPPED, dict(epoch=runner.epoch, iter=runner.iter))
        raise Stopped(f"iteration {runner.iter} is in '{self.last_ckpt}'")

    def _keep_state(self) -> None:
        if self._pending is None:
            self._pending = get_random_state()

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        if self._saving is not None:
            checkpoint['random_state'] = self._saving
        for path in (getattr(self, 'best_ckpt_path', None), *getattr(self, 'best_ckpt_path_dict', {}).values()):
            if path:
                self._written.add(os.path.basename(path))

    def _save_checkpoint_with_step(self, runner: Runner, step: int, meta: dict) -> None:
        """Write the checkpoint of ``step``, then ``last_checkpoint``, then remove checkpoints that are too old.

        Raises:
            NonFiniteLossError: A weight is NaN or infinite; nothing is written or removed.
        """
        outdated = self._outdated(runner, step)
        self._write(runner, self.filename_tmpl.format(step), meta)
        for name in [*outdated, STOPPED]:
            self._remove(name)

    def _write(self, runner: Runner, name: str, meta: dict) -> None:
        """Write a checkpoint, then its name into ``last_checkpoint``."""
        check_finite(runner, self.last_ckpt)
        self.last_ckpt = self.file_backend.join_path(self.out_dir, name)
        runner.message_hub.update_info('last_ckpt', self.last_ckpt)
        state = self._pending or get_random_state()
        seed = getattr(drawing_sampler(runner.train_dataloader), 'seed', None)
        self._written.add(name)
        self._saving = dict(ranks=all_gather_object(state), sampler_seed=seed, batches=self._batches)
        with stopping.uninterrupted():
            runner.save_checkpoint(
                self.out_dir,
                name,
                self.file_client_args,
                save_optimizer=self.save_optimizer,
                save_param_scheduler=self.save_param_scheduler,
                meta=meta,
                by_epoch=self.by_epoch,
                backend_args=self.backend_args,
                **self.args,
            )
            self._saving, self._saved_at = None, meta['iter']
            if is_main_process():
                with replacing(os.path.join(runner.work_dir, 'last_checkpoint')) as temporary:
                    temporary.write_text(self.last_ckpt)

    def _outdated(self, runner: Runner, step: int) -> list[str]:
        """Record ``step`` as kept (in the checkpoint, too); returns the names that now exceed the limit."""
        if self.max_keep_ckpts <= 0:
            return []
        kept = [old for old in self.keep_ckpt_ids if old != step] + [step]
        self.keep_ckpt_ids.clear()  # a step may be written twice, the second time as the best
        self.keep_ckpt_ids.extend(kept)  # has at most max_keep_ckpts entries, the last ones
        runner.message_hub.update_info('keep_ckpt_ids', list(self.keep_ckpt_ids))
        return [self.filename_tmpl.format(old) for old in kept[: -self.max_keep_ckpts]]

    def _save_best_checkpoint(self, runner: Runner, metrics: dict) -> None:
        """Like mmengine's, but the former best is not removed before the new one exists."""
        if not self.save_best:
            return
        if len(self.key_indicators) == 1:
            former, self.best_ckpt_path = {'': self.best_ckpt_path}, None
        else:
            former, self.best_ckpt_path_dict = self.best_ckpt_path_dict, dict.fromkeys(self.best_ckpt_path_dict)
        super()._save_best_checkpoint(runner, metrics)
        for key, path in former.items():
            new = self.best_ckpt_path if key == '' else self.best_ckpt_path_dict.get(key)
            if new is None and key == '':
                self.best_ckpt_path = path
            elif new is None:
                self.best_ckpt_path_dict[key] = path
            elif path and path != new:
                self._remove(os.path.basename(path))

    def _remove(self, name: str) -> None:
        """Remove a checkpoint directly in ``out_dir`` if it exists and this run wrote it, as a file."""
        if not is_main_process() or name not in self._written or name != os.path.basename(name):
            return
        path = self.file_backend.join_path(self.out_dir, name)
        local = isinstance(self.file_backend, LocalBackend)
        if is_regular_file(path) if local else self.file_backend.isfile(path):
            self.file_backend.remove(path)
        self._written.discard(name)
