"""What the command lines share: their common flags, the runner, and errors as one line instead of a traceback."""

from __future__ import annotations

import argparse
import errno
import logging
import os
import re
import sys
import tempfile
import traceback
from collections.abc import Callable

from mmengine.config import Config, DictAction
from mmengine.registry import RUNNERS
from mmengine.runner import Runner

from mmcondetr.engine.check_config import check_config
from mmcondetr.engine.console import ConsoleHook, ConsoleRunner
from mmcondetr.engine.launching import first_cause, is_lost_process, prepare_processes, stop, tell_others
from mmcondetr.errors import Stopped, UserError

USER_ERROR, INTERRUPTED = 2, 130  # exit codes; argparse's own errors have 2 as well
STOPPED = 75
"""Exit code of a training that SIGTERM stopped and that has saved: EX_TEMPFAIL of sysexits.h, 'try again later'."""

TRACEBACK = 'MMCONDETR_TRACEBACK'
"""An environment variable: where it is set, an error that the user can fix comes with its traceback, too."""

#: What constructors raise that are given something else than they expect.
_IN_BUILDING = (ArithmeticError, AssertionError, AttributeError, LookupError, RuntimeError, TypeError, ValueError)
#: What the system says of a disk, and not of a program.
_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG, errno.EIO)


class OptionsAction(DictAction):
    """mmengine's reading of ``key=value``, with one line for what is none."""

    def __call__(self, parser, namespace, values, option_string=None) -> None:
        wrong = [given for given in values or () if not re.fullmatch(r'[^=\s]+=.*', given, re.DOTALL)]
        if wrong:
            parser.error(f'argument {option_string}: {wrong[0]!r} is no key=value')
        super().__call__(parser, namespace, values, option_string)


def add_common_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags that tools/train.py and tools/test.py of mmdet 3.3 have in common, config included."""
    parser.add_argument('config', help="a config's path, or the name of one of ours")
    parser.add_argument('--work-dir', help='where logs and checkpoints go (default: work_dirs/<config name>)')
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action=OptionsAction,
        help='change settings of the config, as key=value; lists as key="[a,b]" or key=a,b, without white space',
    )
    parser.add_argument(
        '--launcher', choices=['none', 'pytorch', 'slurm', 'mpi'], default='none', help='what started the processes'
    )
    parser.add_argument('--verbose', action='store_true', help='the whole log on the console, not in its file alone')
    # torch.distributed.launch, which mim calls, gives the first spelling or the second, by its version.
    parser.add_argument('--local_rank', '--local-rank', type=int, default=0, help=argparse.SUPPRESS)


def use_local_rank(args: argparse.Namespace) -> None:
    """mmengine looks for LOCAL_RANK in the environment."""
    os.environ.setdefault('LOCAL_RANK', str(args.local_rank))


def build_runner(config: Config, verbose: bool = False) -> Runner:
    """The runner that ``config`` describes, with the process group started where mmengine cannot start it.

    Unless ``verbose``, its console is short (:mod:`mmcondetr.engine.console`).
    """
    from mmdet.utils import setup_cache_size_limit_of_dynamo

    check_config(config)
    setup_cache_size_limit_of_dynamo()
    prepare_processes(config)
    if 'visualizer' in config:  # by a name of its own; else a second run of a process logs into the first one's folder
        config.visualizer.pop('name', None)
    try:
        if 'runner_type' in config:
            return RUNNERS.build(config)
        if verbose:
            return Runner.from_cfg(config)
        runner = ConsoleRunner.from_cfg(config)
    except _IN_BUILDING as error:  # what a class of others does not take, where check_config could not know
        if is_lost_process(error):
            raise
        reason = ' '.join(str(error).split())[:300]
        raise UserError(
            f"Config '{config.filename}' cannot be built: {type(error).__name__}: {reason} "
            f'({TRACEBACK}=1 in the environment shows where).'
        ) from error
    runner.register_hook(ConsoleHook(), priority='LOWEST')  # after whatever it tells of
    return runner


def check_work_dir(folder: str) -> None:
    """Look whether a file can be written there, before minutes are spent on what comes first.

    Raises:
        UserError: it cannot.
    """
    try:
        os.makedirs(folder, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(b'0')
    except OSError as error:
        raise UserError(f"work_dir '{folder}': cannot be written ({error.strerror}).") from error


def run_guarded(run: Callable[[], None], resume_hint: str = '', user_error: int = USER_ERROR) -> int:
    """Call ``run``; returns the exit code.

    An error that the user can fix is printed as one message on stderr; every other error keeps its traceback.

    Args:
        run: the command.
        resume_hint: what takes an interrupted one up again, '' where nothing does.
        user_error: exit code for an error that the user can fix.
    """
    logging.raiseExceptions = False  # a log on a full disk is no reason for a traceback
    try:
        run()
    except UserError as error:
        tell_others(str(error))
        if os.environ.get(TRACEBACK):
            traceback.print_exc()
        _say(f'error{_process()}: {error}')
        return user_error
    except Stopped as error:
        _say(f'stopped{_process()}: {error}' + (f'; {resume_hint} goes on from there' if resume_hint else ''))
        return STOPPED
    except KeyboardInterrupt:
        hint = f': {resume_hint} goes on from the last checkpoint' if resume_hint else ''
        _say(f'interrupted{hint}')
        return INTERRUPTED
    except Exception as error:
        if isinstance(error, OSError) and error.errno in _DISK:
            tell_others(str(error))
            _say(f"error{_process()}: cannot write '{error.filename or ''}': {error.strerror}")
            return user_error
        if is_lost_process(error):
            _say(f'error{_process()}: {first_cause(error)}')
            return user_error
        tell_others(f'{type(error).__name__}: {error}')
        raise
    finally:
        stop()
    return 0


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _process() -> str:
    rank = os.environ.get('RANK')
    return f' (process {rank})' if rank not in (None, '0') else ''
