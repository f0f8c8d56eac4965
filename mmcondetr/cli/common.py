"""Shared by the command lines: common options, the runner, and errors as one line instead of a traceback."""

from __future__ import annotations

import argparse
import errno
import logging
import os
import re
import sys
import tempfile
import traceback
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import Any

from mmengine.config import Config, DictAction
from mmengine.registry import RUNNERS
from mmengine.runner import Runner

from mmcondetr.engine.check_config import check_config
from mmcondetr.engine.check_masks import check_measured_masks
from mmcondetr.engine.closing_hook import ClosingHook
from mmcondetr.engine.console import ConsoleHook, ConsoleRunner
from mmcondetr.engine.launching import first_cause, is_lost_process, prepare_processes, stop, tell_others
from mmcondetr.engine.stopping import interrupted_again
from mmcondetr.errors import Stopped, UserError
from mmcondetr.terminal import printable, say
from mmcondetr.writing import is_regular_file

USER_ERROR, INTERRUPTED = 2, 130  # exit codes; argparse's own errors have 2 as well
STOPPED = 75
"""Exit code of a training that SIGTERM stopped and that has saved: EX_TEMPFAIL of sysexits.h, 'try again later'."""

TRACEBACK = 'MMCONDETR_TRACEBACK'
"""Environment variable that, if set, adds the traceback to user-fixable errors, and the place to warnings."""

#: Raised by constructors on unexpected arguments.
_IN_BUILDING = (ArithmeticError, AssertionError, AttributeError, LookupError, RuntimeError, TypeError, ValueError)
#: What a runner builds when it begins.
_BUILT_LATER = (
    *('build_train_loop', 'build_val_loop', 'build_test_loop'),
    *('build_evaluator', 'build_optim_wrapper', 'build_param_scheduler'),
)
#: Errors of the disk, not of the program.
_LOST_WORKER = re.compile(r'DataLoader worker \(pid.* (killed by signal: \w+|exited unexpectedly)')  # torch's words
_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG, errno.EIO)


class OptionsAction(DictAction):
    """mmengine's parsing of ``key=value``, with a one-line error for invalid input."""

    def __call__(self, parser, namespace, values, option_string=None) -> None:
        wrong = [given for given in values or () if not re.fullmatch(r'[^=\s]+=.*', given, re.DOTALL)]
        if wrong:
            parser.error(f'argument {option_string}: {wrong[0]!r} is not key=value')
        super().__call__(parser, namespace, values, option_string)


def add_common_arguments(parser: argparse.ArgumentParser) -> None:
    """The options common to tools/train.py and tools/test.py of mmdet 3.3, including the config."""
    parser.add_argument('config', help='path of a config, or the name of one in the package')
    parser.add_argument('--work-dir', help='folder of logs and checkpoints (default: work_dirs/<config name>)')
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action=OptionsAction,
        help='change settings of the config, as key=value; lists as key="[a,b]" or key=a,b, without white space',
    )
    parser.add_argument(
        '--launcher', choices=['none', 'pytorch', 'slurm', 'mpi'], default='none', help='distributed launcher'
    )
    parser.add_argument('--verbose', action='store_true', help='print the whole log on the console, too')
    # torch.distributed.launch, which mim calls, uses one or the other spelling, depending on its version.
    parser.add_argument('--local_rank', '--local-rank', type=int, default=0, help=argparse.SUPPRESS)


def use_local_rank(args: argparse.Namespace) -> None:
    """Set LOCAL_RANK in the environment, where mmengine expects it."""
    os.environ.setdefault('LOCAL_RANK', str(args.local_rank))


def build_runner(config: Config, verbose: bool = False) -> Runner:
    """Build the runner that ``config`` describes; starts the process group if mmengine cannot.

    Unless ``verbose``, its console is short (:mod:`mmcondetr.engine.console`).
    """
    from mmdet.utils import setup_cache_size_limit_of_dynamo

    check_config(config)
    check_measured_masks(config)
    check_written_names(config)
    setup_cache_size_limit_of_dynamo()
    prepare_processes(config)
    if 'visualizer' in config:  # a unique name, or a second run in a process would log into the first one's folder
        config.visualizer.pop('name', None)
    if 'runner_type' in config:
        return _explained(RUNNERS.build, config)(config)
    runner = _explained((Runner if verbose else ConsoleRunner).from_cfg, config)(config)
    for part in _BUILT_LATER:
        setattr(runner, part, _explained(getattr(runner, part), config))
    runner.register_hook(ClosingHook(), priority='LOWEST')
    if verbose:
        return runner
    runner.register_hook(ConsoleHook(), priority='LOWEST')  # after the hooks whose results it prints
    return runner


def _explained(build: Callable, config: Config) -> Callable:
    """``build``, with one line that names the file for a setting that a class rejects, unknown to check_config."""

    @wraps(build)
    def explained(*args: Any, **options: Any) -> Any:
        try:
            return build(*args, **options)
        except UserError as error:
            if not str(error).startswith('model.'):  # about data or weights, whose file it names
                raise
            raise UserError(f"Config '{config.filename}': {error}") from error
        except _IN_BUILDING as error:
            if is_lost_process(error):
                raise
            reason = ' '.join(str(error).split())[:300]
            raise UserError(
                f"Config '{config.filename}' cannot be built: {type(error).__name__}: {reason} "
                f'({TRACEBACK}=1 in the environment shows where).'
            ) from error

    return explained


def check_work_dir(folder: str) -> None:
    """Check that the folder is writable, before minutes are spent on other work.

    Raises:
        UserError: it is not.
    """
    try:
        os.makedirs(folder, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(b'0')
    except OSError as error:
        raise UserError(f"work_dir '{folder}': cannot be written ({error.strerror}).") from error


def check_written_names(config: Config) -> None:
    """Check that the name under which mmengine dumps the config into the work directory is free, or a file's.

    The rest is safe: a run's log has a folder of its own (:mod:`mmcondetr.compat.log_folder`), and checkpoints and
    notes of them are renamed to their names, and replace a link.

    Raises:
        UserError: it is a link, a pipe or a folder.
    """
    folder, own = config.work_dir, os.path.basename(config.filename or '')
    if own and os.path.lexists(os.path.join(folder, own)) and not is_regular_file(os.path.join(folder, own)):
        raise UserError(
            f"work_dir '{folder}': {own} in it is not of ours (but a link, a folder or a pipe), and would be written "
            'to: remove it.'
        )


def run_guarded(run: Callable[[], None], resume_hint: str = '', user_error: int = USER_ERROR) -> int:
    """Call ``run``; returns the exit code.

    A user-fixable error is printed as one message on stderr; all other errors keep their traceback.

    Args:
        run: the command.
        resume_hint: how to resume an interrupted command; '' if it cannot be resumed.
        user_error: exit code for a user-fixable error.
    """
    logging.raiseExceptions = False  # a log on a full disk must not cause a traceback
    try:
        with _short_warnings():
            _run_interruptible(run)
    except UserError as error:
        tell_others(str(error))
        if os.environ.get(TRACEBACK):
            traceback.print_exc()
        say(f'error{_process()}: {error}', file=sys.stderr)
        return user_error
    except Stopped as error:
        say(
            f'stopped{_process()}: {error}' + (f'; {resume_hint} continues from there' if resume_hint else ''),
            file=sys.stderr,
        )
        return STOPPED
    except KeyboardInterrupt:
        hint = f': {resume_hint} continues from the last checkpoint' if resume_hint else ''
        say(f'interrupted{hint}', file=sys.stderr)
        return INTERRUPTED
    except Exception as error:
        if isinstance(error, OSError) and error.errno in _DISK:
            tell_others(str(error))
            say(f"error{_process()}: cannot write '{error.filename or ''}': {error.strerror}", file=sys.stderr)
            return user_error
        if is_lost_process(error):
            say(f'error{_process()}: {first_cause(error)}', file=sys.stderr)
            return user_error
        if isinstance(error, RuntimeError) and (lost := _LOST_WORKER.search(str(error))):
            reason = f'a process that loads images has ended ({lost[1]})'
            tell_others(reason)
            hint = ' If memory ran out: fewer of them (num_workers of the data loader) need less.'
            hint += f' {resume_hint} continues from the last checkpoint.' if resume_hint else ''
            say(f'error{_process()}: {reason}.{hint}', file=sys.stderr)
            return user_error
        tell_others(f'{type(error).__name__}: {error}')
        raise
    finally:
        stop()
    return 0


def _run_interruptible(run: Callable[[], None]) -> None:
    """Call ``run``; a Ctrl-C that a library has turned into an error (mmengine's formatting of configs) is one again.

    Raises:
        KeyboardInterrupt: an error was raised while one was handled, or it was swallowed.
    """
    try:
        with interrupted_again():
            run()
    except Exception as error:
        reason: BaseException | None = error
        while reason is not None and not isinstance(reason, KeyboardInterrupt):
            reason = reason.__cause__ or reason.__context__
        if reason is not None:
            raise KeyboardInterrupt from error
        raise


@contextmanager
def _short_warnings() -> Iterator[None]:
    """Print warnings for users as one line, without the line of a library's code that was running."""
    former = warnings.formatwarning

    def shorten(message: Warning | str, category: type[Warning], *where: Any, **more: Any) -> str:
        if os.environ.get(TRACEBACK) or not issubclass(category, UserWarning):
            return former(message, category, *where, **more)
        return f'warning: {printable(str(message))}\n'

    warnings.formatwarning = shorten
    try:
        yield
    finally:
        warnings.formatwarning = former


def _process() -> str:
    rank = os.environ.get('RANK')
    return f' (process {rank})' if rank not in (None, '0') else ''
