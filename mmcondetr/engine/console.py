"""A run's console output: config, folders, data, model, then a line at intervals; the log file has everything."""

from __future__ import annotations

import contextlib
import io
import logging
import os
import time
from datetime import timedelta
from typing import Any

import torch
from mmengine.dist import get_world_size, is_main_process
from mmengine.hooks import Hook, LoggerHook
from mmengine.logging import MMLogger
from mmengine.model import is_model_wrapper
from mmengine.runner import IterBasedTrainLoop, Runner

from mmcondetr.engine.coco_panoptic_metric import measures_panoptic
from mmcondetr.terminal import printable, say

BAR = 20  # characters
SILENCE = 30.0  # seconds after which a line is printed, however few iterations have passed
_NOISE = ('will be deprecated', 'is the alias of')  # mmengine's, about its own way of opening files


class _Plain(logging.Formatter):
    """Formats messages with names of files and classes in them."""

    def format(self, record: logging.LogRecord) -> str:
        return printable(super().format(record))


class ConsoleRunner(Runner):
    """mmengine's Runner, whose console shows warnings and errors only; the log file has everything, as before."""

    def build_logger(self, *args, **kwargs) -> MMLogger:
        logger = super().build_logger(*args, **kwargs)
        for handler in logger.handlers:
            if type(handler) is logging.StreamHandler:
                handler.setLevel(max(handler.level, logging.WARNING))
                handler.setFormatter(_Plain('%(levelname)s: %(message)s'))
                handler.addFilter(lambda record: not any(words in record.getMessage() for words in _NOISE))
        return logger

    def load_checkpoint(self, *args, **kwargs) -> dict:
        with without_chatter():
            return super().load_checkpoint(*args, **kwargs)


class ConsoleHook(Hook):
    """Prints a run's progress in few lines: its start, at intervals a line with a bar and the time left, metrics."""

    def __init__(self) -> None:
        self._interval = 50
        self._started = self._said = time.monotonic()
        self._first = self._last = 0  # iterations: at the start of this process, and at the last line
        self._best: str | None = None

    def before_run(self, runner: Runner) -> None:
        self._interval = next((hook.interval for hook in runner.hooks if isinstance(hook, LoggerHook)), self._interval)
        self._say(f'config    {_short(runner.cfg.filename) if runner.cfg.filename else "made in Python"}')
        self._say(f'writes    {_short(runner.work_dir)}; the whole log is {_short(runner.logger.log_file)}')

    def before_train(self, runner: Runner) -> None:
        loop = runner.train_loop
        self._describe(runner, train=loop.dataloader, val=getattr(runner.val_loop, 'dataloader', None))
        length = (
            f'{loop.max_iters} iterations'
            if isinstance(loop, IterBasedTrainLoop)
            else f'{loop.max_epochs} epochs of {len(loop.dataloader)} iterations'
        )
        batch = loop.dataloader.batch_size or getattr(loop.dataloader.batch_sampler, 'batch_size', '?')
        if get_world_size() > 1:
            batch = f'{get_world_size()} x {batch}'
        self._say(f'training  {length} with {batch} images; a line every {self._interval} iterations')
        self._started = self._said = time.monotonic()
        self._first = self._last = loop.iter
        self._best = runner.message_hub.runtime_info.get('best_ckpt')
        if loop.iter >= loop.max_iters:
            done, unit, name = _progress(loop)
            self._say(
                f'nothing to train: the run is finished, at {unit} {done}. --cfg-options {name}=N continues to N.'
            )
        elif loop.iter:
            done, unit, _ = _progress(loop)
            self._say(f'resumes   after {unit} {done}')

    def after_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
        loop, done = runner.train_loop, runner.iter + 1
        late = time.monotonic() - self._said > SILENCE
        if done - self._last < self._interval and not late and done < loop.max_iters:
            return
        window = max(1, done - self._last)
        parts = [_bar(done / loop.max_iters)]
        if isinstance(loop, IterBasedTrainLoop):
            parts.append(f'iteration {done}/{loop.max_iters}')
        else:
            parts.append(
                f'epoch {runner.epoch + 1}/{loop.max_epochs}, iteration {batch_idx + 1}/{len(loop.dataloader)}'
            )
        known = runner.message_hub.log_scalars
        if 'train/loss' in known:
            parts.append(f'loss {known["train/loss"].mean(window):.4g}')
        if 'train/time' in known:
            parts.append(f'{known["train/time"].mean(window):.2f} s each')
        if torch.cuda.is_available():
            parts.append(f'{torch.cuda.max_memory_allocated() / 2**30:.1f} GiB')
        left = (time.monotonic() - self._started) / max(1, done - self._first) * (loop.max_iters - done)
        self._say('  '.join([*parts, f'{_duration(left)} left']))
        self._last = done

    def after_val_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
        self._say_if_late('validating', batch_idx + 1, len(runner.val_dataloader))

    def after_val_epoch(self, runner: Runner, metrics: dict[str, float] | None = None) -> None:
        best = runner.message_hub.runtime_info.get('best_ckpt')
        news = f'  best so far, kept as {os.path.basename(best)}' if best and best != self._best else ''
        self._best = best
        done, unit, _ = _progress(runner.train_loop)
        self._say(f'validation after {unit} {done}: {_measures(metrics)}{news}')

    def after_train(self, runner: Runner) -> None:
        last = runner.message_hub.runtime_info.get('last_ckpt')
        if runner.iter == self._first or last is None:
            return
        self._say(f'trained in {_duration(time.monotonic() - self._started)}: {_short(last)}')
        if self._best:
            self._say(f'best      {_short(self._best)}')
        if runner.cfg.filename:
            command = 'test' if measures_panoptic(runner.cfg.get('val_evaluator')) else 'analyze'  # which is of boxes
            self._say(f'next      mmcondetr {command} {_short(runner.cfg.filename)} {_short(runner.work_dir)}')

    def before_test(self, runner: Runner) -> None:
        self._describe(runner, test=runner.test_loop.dataloader)
        batch = runner.test_loop.dataloader.batch_size or 1
        if batch > 1:
            self._say(
                f'batches   of {batch}: an image that is padded to the size of others scores a little differently; '
                f'--batch-size {batch} puts only images of one shape together'
            )
        self._started = self._said = time.monotonic()

    def after_test_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
        self._say_if_late('testing', batch_idx + 1, len(runner.test_dataloader))

    def after_test_epoch(self, runner: Runner, metrics: dict[str, float] | None = None) -> None:
        self._say(f'tested in {_duration(time.monotonic() - self._started)}: {_measures(metrics)}')

    def _describe(self, runner: Runner, **loaders: Any) -> None:
        sets = {name: loader.dataset for name, loader in loaders.items() if loader is not None}
        counts = ', '.join(f'{name} {len(dataset)} images' for name, dataset in sets.items())
        classes = (getattr(next(iter(sets.values())), 'metainfo', None) or {}).get('classes', ())
        names = ', '.join(classes[:8]) + (', ...' if len(classes) > 8 else '')
        self._say(f'data      {counts}; {len(classes)} classes: {names}')
        model = runner.model.module if is_model_wrapper(runner.model) else runner.model
        sizes = [(parameter.numel(), parameter.requires_grad) for parameter in model.parameters()]
        total, learning = sum(size for size, _ in sizes), sum(size for size, learns in sizes if learns)
        start = runner._load_from  # mmengine keeps it only there
        self._say(
            f'model     {type(model).__name__}'
            + (f', {total / 1e6:.1f} million parameters' if total else '')
            + (f', {learning / 1e6:.1f} trainable' if 'train' in loaders else '')
            + (f', from {_short(start)}' if start else '')
        )
        fitted = getattr(model, 'fitted_groups', '')
        if fitted and 'train' in loaders:  # testing uses group 0 alone
            self._say(f'queries   {fitted}')
        self._say(f'on        {_device(model)}')

    def _say_if_late(self, what: str, done: int, total: int) -> None:
        if time.monotonic() - self._said > SILENCE:
            self._say(f'{_bar(done / max(1, total))}  {what} {done}/{total}')

    def _say(self, line: str) -> None:
        self._said = time.monotonic()
        if is_main_process():
            say(line)


@contextlib.contextmanager
def without_chatter():
    """Suppress what libraries print of their progress (pycocotools: 'creating index...'); what they log stays."""
    with contextlib.redirect_stdout(io.StringIO()):
        yield


def _progress(loop: Any) -> tuple[str, str, str]:
    """('2 of 50', 'epoch', 'max_epochs'), or the same of iterations."""
    if isinstance(loop, IterBasedTrainLoop):
        return f'{loop.iter} of {loop.max_iters}', 'iteration', 'max_iters'
    return f'{loop.epoch} of {loop.max_epochs}', 'epoch', 'max_epochs'


def _short(path: str) -> str:
    """Relative to the current folder, if that is shorter."""
    return path if '://' in path else min(os.path.relpath(path), os.path.abspath(path), key=len)


def _bar(share: float) -> str:
    filled = round(BAR * min(1.0, share))
    return f'[{"#" * filled}{"." * (BAR - filled)}] {100 * share:3.0f}%'


def _duration(seconds: float) -> str:
    return str(timedelta(seconds=round(seconds)))


def _measures(metrics: dict[str, Any] | None) -> str:
    """'coco/bbox_mAP: 0.4100 ...'; -1, COCO's value for 'no such objects', is left out."""
    shown = [
        f'{name}: {value:.4f}'
        for name, value in (metrics or {}).items()
        if isinstance(value, (int, float)) and value != -1
    ]
    return '  '.join(shown) or 'no measures'


def _device(model: torch.nn.Module) -> str:
    device = next(
        (parameter.device for parameter in model.parameters()), torch.device('cpu')
    )  # an exported file has no parameters
    if device.type == 'cuda':
        name = torch.cuda.get_device_name(device)
        return f'{get_world_size()} x {name}' if get_world_size() > 1 else name
    processes = f', {get_world_size()} processes' if get_world_size() > 1 else ''
    return f'{device}, {torch.get_num_threads()} threads{processes}'
