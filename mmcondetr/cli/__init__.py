"""The command line: ``mmcondetr COMMAND`` and ``python -m mmcondetr COMMAND``; the scripts in tools/ are the same.

One file per command, with an example in its docstring, ``add_arguments(parser)`` and ``run(args)``, and if they differ
from the defaults ``RESUME_HINT`` (how to resume after an interruption) and ``USER_ERROR`` (its exit code).
"""

from __future__ import annotations

import argparse
import importlib
import os
import select
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import ModuleType

from mmcondetr.errors import missing
from mmcondetr.terminal import say

#: Command -> its line in ``mmcondetr --help``. The module is imported only when the command is used.
COMMANDS = {
    'init': 'inspect a data set (COCO, YOLO, Pascal VOC) and write a config for it',
    'check': 'check environment, config, annotations and images before training',
    'train': 'train a detector',
    'test': 'evaluate a checkpoint',
    'predict': 'find objects in images, folders and videos: pictures and a COCO JSON',
    'analyze': 'compare predictions with the ground truth: AP by class, confusions, kinds of errors, the worst images',
    'explain': 'write a page that shows where a detector looks in an image',
    'export': 'export a detector to ONNX or OpenVINO, to run without PyTorch',
    'visualize-attention': 'draw where a detector looks',
    'attention-extremities': 'measure whether heads attend to the extremities of boxes',
    'convert-checkpoint': "convert a checkpoint between mmcondetr, mmdet, the authors' code and Hugging Face",
    'convert-annotations': 'repair a COCO annotation file: boxes of another format, ids that do not match',
    'plot-convergence': 'plot AP and losses of several runs',
    'list': "list the configs, the papers' AP and published weights",
    'config': 'print a config with all its base configs merged',
    'download': 'download published weights, verified',
    'generate-shapes': 'draw the shapes data set',
}


def load_command(name: str) -> ModuleType:
    """The module of a command."""
    return importlib.import_module(f'mmcondetr.cli.{name.replace("-", "_")}')


#: The exit code if nobody reads the output any more, as a shell reports it: 128 + the signal's number.
NOT_READ = 128 + 13


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit code.

    If nobody reads its output to the end (``mmcondetr list | head``), it ends silently, as Unix tools do.
    """
    try:
        try:
            return _run(arguments)
        finally:
            if sys.stdout is not None:
                sys.stdout.flush()  # here, where it can be handled; at exit, Python would report it as an error
    except BrokenPipeError:
        if not _nobody_reads():  # another pipe, such as a worker's
            raise
        return NOT_READ


def _run(arguments: Sequence[str] | None) -> int:
    with _interrupted_at_once():
        try:
            args = _parse([*(sys.argv[1:] if arguments is None else arguments)])  # list() is a command's name here
        except ModuleNotFoundError as error:
            if (error.name or 'mmcondetr').partition('.')[0] == 'mmcondetr':
                raise
            say(f'error: {missing(error.name)}', file=sys.stderr)
            return 2
        from mmcondetr.cli.common import run_guarded
    resume_hint, user_error = getattr(args.module, 'RESUME_HINT', ''), getattr(args.module, 'USER_ERROR', 2)
    return run_guarded(lambda: args.module.run(args), resume_hint, user_error)


def _parse(arguments: list[str]) -> argparse.Namespace:
    """The arguments of the chosen command, with its module as ``module``."""
    parser = argparse.ArgumentParser(prog='mmcondetr', description='Conditional DETR for MMDetection 3.x')
    commands = parser.add_subparsers(dest='command', metavar='COMMAND', required=True)
    chosen = next((word for word in arguments if not word.startswith('-')), None)
    for name, line in COMMANDS.items():
        if name != chosen:  # listed without importing its module
            commands.add_parser(name, help=line, add_help=False)
            continue
        module = load_command(name)
        script = os.path.basename(sys.argv[0])
        command = commands.add_parser(
            name,
            prog=script if script == f'{name.replace("-", "_")}.py' else None,  # tools/train.py
            help=line,
            description=module.__doc__,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        module.add_arguments(command)
        command.set_defaults(module=module)
    return parser.parse_args(arguments)


def _nobody_reads() -> bool:
    """Whether stdout or stderr is a pipe whose reader has gone; if so, buffered output is dropped."""
    gone = False
    for stream in (sys.stdout, sys.stderr):
        poll = select.poll()
        try:
            poll.register(stream.fileno(), 0)  # errors only, which are always reported
        except (AttributeError, OSError, ValueError):  # closed, or no file, as in a notebook
            continue
        if poll.poll(0):
            gone = True
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, stream.fileno())
            os.close(nowhere)
    return gone


@contextmanager
def _interrupted_at_once() -> Iterator[None]:
    """Let Ctrl-C end the process while libraries are imported: some swallow it, others print a traceback."""
    if (
        threading.current_thread() is not threading.main_thread()
        or signal.getsignal(signal.SIGINT) is not signal.default_int_handler
    ):
        yield
        return
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)
