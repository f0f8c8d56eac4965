"""What the command lines share: their common flags, the runner, and errors as one line instead of a traceback."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable

from mmengine.config import Config, DictAction
from mmengine.registry import RUNNERS
from mmengine.runner import Runner

from mmcondetr.engine.check_config import check_config
from mmcondetr.engine.launching import prepare_processes, stop
from mmcondetr.errors import UserError

USER_ERROR, INTERRUPTED = 2, 130  # exit codes; argparse's own errors have 2 as well


def add_common_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags that tools/train.py and tools/test.py of mmdet 3.3 have in common, config included."""
    parser.add_argument('config', help="a config's path, or the name of one of ours")
    parser.add_argument('--work-dir', help='where logs and checkpoints go (default: work_dirs/<config name>)')
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action=DictAction,
        help='change settings of the config, as key=value; lists as key="[a,b]" or key=a,b, without white space',
    )
    parser.add_argument(
        '--launcher', choices=['none', 'pytorch', 'slurm', 'mpi'], default='none', help='what started the processes'
    )
    # torch.distributed.launch, which mim calls, gives the first spelling or the second, by its version.
    parser.add_argument('--local_rank', '--local-rank', type=int, default=0, help=argparse.SUPPRESS)


def use_local_rank(args: argparse.Namespace) -> None:
    """mmengine looks for LOCAL_RANK in the environment."""
    os.environ.setdefault('LOCAL_RANK', str(args.local_rank))


def build_runner(config: Config) -> Runner:
    """The runner that ``config`` describes, with the process group started where mmengine cannot start it."""
    from mmdet.utils import setup_cache_size_limit_of_dynamo

    check_config(config)
    setup_cache_size_limit_of_dynamo()
    prepare_processes(config)
    if 'visualizer' in config:  # by a name of its own; else a second run of a process logs into the first one's folder
        config.visualizer.pop('name', None)
    try:
        return RUNNERS.build(config) if 'runner_type' in config else Runner.from_cfg(config)
    except TypeError as error:  # what a class of others does not take, where check_config could not know
        if 'unexpected keyword argument' in str(error) or 'required positional argument' in str(error):
            raise UserError(f"Config '{config.filename}': {error}") from error
        raise


def run_guarded(run: Callable[[], None], resume_hint: str = '', user_error: int = USER_ERROR) -> int:
    """Call ``run``; returns the exit code.

    An error that the user can fix is printed as one message on stderr; every other error keeps its traceback.

    Args:
        run: the command.
        resume_hint: what takes an interrupted one up again, '' where nothing does.
        user_error: exit code for an error that the user can fix.
    """
    try:
        run()
    except UserError as error:
        rank = os.environ.get('RANK')
        where = f' (process {rank})' if rank not in (None, '0') else ''
        print(f'error{where}: {error}', file=sys.stderr)
        return user_error
    except KeyboardInterrupt:
        hint = f': {resume_hint} goes on from the last checkpoint' if resume_hint else ''
        print(f'interrupted{hint}', file=sys.stderr)
        return INTERRUPTED
    finally:
        stop()
    return 0
