"""One attempt: a function in a forked process under limits, and what its end is called."""

from __future__ import annotations

import os
import resource
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from mmcondetr.errors import UserError

OUTCOMES = ('survived', 'clear error', 'traceback', 'silent', 'crash', 'hang', 'code run', 'data lost')
"""survived: it worked, and what came out was checked. clear error: one line that says why not. traceback: it failed in
another way. silent: it went on with what is wrong. crash: killed by a signal, memory corruption included. hang: it did
not end in time. code run: what a file brought along was executed. data lost: something good was there before and is
not now."""

SILENT, LOST, HUNG = 77, 78, 79  # exit codes that no command has
_WORDS_OF_ERROR = ('error', 'refused', 'cannot', 'interrupted', 'usage:')


class Silent(Exception):
    """Raised by an attempt: what is wrong was accepted."""


class DataLost(Exception):
    """Raised by an attempt: something that was good is gone or damaged."""


class Hung(Exception):
    """Raised by an attempt: a process that it has started does not end."""


@dataclass(frozen=True)
class Attempt:
    """One attack.

    Attributes:
        name: says what is done; with the seed it can be done again.
        run: what the forked process calls; returns an exit code (None is 0), or raises.
        must_fail: being accepted without an error counts as silent.
        seconds: after which it counts as hanging.
        megabytes: of address space on top of what the process has; None sets no limit.
        check: called in the parent afterwards; may raise :class:`DataLost` or :class:`Silent`.
    """

    name: str
    run: Callable[[], int | None]
    must_fail: bool = False
    seconds: float = 60
    megabytes: int | None = None
    check: Callable[[], None] | None = None


@dataclass(frozen=True)
class Result:
    """How an attempt ended; ``detail`` is the last line that it printed, ``seconds`` what it took."""

    name: str
    outcome: str
    detail: str
    seconds: float


def _child(attempt: Attempt, output: int) -> None:
    """Run the attempt; never returns."""
    code = 1
    try:
        os.setsid()
        os.dup2(output, 1)
        os.dup2(output, 2)
        sys.stdout = os.fdopen(1, 'w', buffering=1, closefd=False)
        sys.stderr = os.fdopen(2, 'w', buffering=1, closefd=False)
        if attempt.megabytes is not None:
            pages = int(Path('/proc/self/statm').read_text().split()[0])
            limit = pages * resource.getpagesize() + (attempt.megabytes << 20)
            resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
        code = attempt.run() or 0
    except UserError as error:
        print(f'error: {error}', file=sys.stderr)
        code = 2
    except Silent as error:
        print(f'silent: {error}', file=sys.stderr)
        code = SILENT
    except DataLost as error:
        print(f'lost: {error}', file=sys.stderr)
        code = LOST
    except Hung as error:
        print(f'hangs: {error}', file=sys.stderr)
        code = HUNG
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else 1
    except BaseException:
        traceback.print_exc()
    finally:
        try:
            sys.stdout.flush()
            sys.stderr.flush()
        finally:
            os._exit(code & 0xFF)


def start(attempt: Attempt, output: int) -> int:
    """Fork; returns the process id, which is that of a process group, too."""
    process = os.fork()
    if process == 0:
        _child(attempt, output)
    return process


PATIENCE = 6
"""How many times its seconds an attempt may take that works, or waits for a processor, instead of waiting for ever."""


def _busy(groups: set[int]) -> bool:
    """Whether a process of these groups runs, waits for a processor, or for a disk."""
    for status in Path('/proc').glob('[0-9]*/stat'):
        try:
            fields = status.read_text().rpartition(')')[2].split()  # state, parent, group, ...
        except OSError:
            continue
        if int(fields[2]) in groups and fields[0] in 'RD':
            return True
    return False


def wait(process: int, seconds: float) -> int | None:
    """The status that ``os.waitpid`` gives, or None after so many seconds; then the whole group is killed."""
    return wait_for([process], seconds).get(process)


def wait_for(processes: list[int], seconds: float, stopped: int | None = None) -> dict[int, int]:
    """The status of each process that ends within so many seconds; all groups are killed then.

    Who was busy in the last tenth of the time gets it once more, up to :data:`PATIENCE` times: on a loaded machine
    slow is no hang, and a loop without end is one in any case. Nobody waits for a process that was ``stopped``.
    """
    statuses: dict[int, int] = {}
    for _ in range(PATIENCE):
        if not _wait_once([process for process in processes if process != stopped], statuses, seconds):
            break
    for process in processes:
        try:
            os.killpg(process, signal.SIGKILL)  # what it left running, too
        except ProcessLookupError:
            pass
    for process in processes:
        if process not in statuses:
            os.waitpid(process, 0)
    return statuses


def _wait_once(processes: list[int], statuses: dict[int, int], seconds: float) -> bool:
    """Fill ``statuses``; returns whether some have not ended and are seen busy in the last tenth of the time."""
    busy, end, pause = False, time.monotonic() + seconds, 0.005
    while time.monotonic() < end:
        left = {process for process in processes if process not in statuses}
        for process in left:
            done, found = os.waitpid(process, os.WNOHANG)
            if done:
                statuses[process] = found
        if left <= set(statuses):
            return False
        if not busy and time.monotonic() > end - seconds / 10:
            busy, pause = _busy(left), 0.1
        time.sleep(pause)
    return busy


def classify(status: int | None, text: str, must_fail: bool, canary: Path | None) -> str:
    """The outcome by the status of a process and what it printed."""
    if canary is not None and canary.exists():
        return 'code run'
    if status is None:
        return 'hang'
    if os.WIFSIGNALED(status):
        return 'crash'
    code = os.WEXITSTATUS(status)
    if code in (SILENT, LOST, HUNG):
        return {SILENT: 'silent', LOST: 'data lost', HUNG: 'hang'}[code]
    if code == 0:
        return 'silent' if must_fail else 'survived'
    said = any(word in text.lower() for word in _WORDS_OF_ERROR)
    return 'traceback' if 'Traceback (most recent call last)' in text or not said else 'clear error'


def last_line(text: str) -> str:
    """What an attempt said last, in one line."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1][:300] if lines else ''


def carry_out(attempt: Attempt, canary: Path | None = None) -> Result:
    """Run one attempt in a process of its own, and look at what is left of it."""
    if canary is not None:
        canary.unlink(missing_ok=True)
    started = time.monotonic()
    with tempfile.TemporaryFile() as output:
        status = wait(start(attempt, output.fileno()), attempt.seconds)
        output.seek(0)
        text = output.read().decode(errors='replace')
    outcome, detail = classify(status, text, attempt.must_fail, canary), last_line(text)
    if attempt.check is not None and outcome not in ('code run', 'data lost'):
        try:
            attempt.check()
        except DataLost as error:
            outcome, detail = 'data lost', str(error)
        except Silent as error:
            outcome, detail = 'silent', str(error)
    return Result(attempt.name, outcome, detail, round(time.monotonic() - started, 2))
