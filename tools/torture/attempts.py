"""One attempt: a function in a forked process with limits, and its outcome."""

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
"""survived: it worked, and the result was checked. clear error: one line with the reason. traceback: it failed in
another way. silent: it continued despite an error. crash: killed by a signal, including memory corruption. hang: it did
not end in time. code run: code from a file was executed. data lost: something valid was destroyed."""

SILENT, LOST, HUNG = 77, 78, 79  # exit codes that no command has
_WORDS_OF_ERROR = ('error', 'refused', 'cannot', 'interrupted', 'usage:')


class Silent(Exception):
    """Raised by an attempt: invalid input was accepted."""


class DataLost(Exception):
    """Raised by an attempt: something valid is missing or damaged."""


class Hung(Exception):
    """Raised by an attempt: a process that it started does not end."""


@dataclass(frozen=True)
class Attempt:
    """One attack.

    Attributes:
        name: describes the attack; with the seed, it can be repeated.
        run: called by the forked process; returns an exit code (None is 0), or raises.
        must_fail: whether acceptance without an error counts as silent.
        seconds: after which it counts as hanging.
        megabytes: of additional address space; None sets no limit.
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
    """How an attempt ended; ``detail`` is the last line that it printed, ``seconds`` its duration."""

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
    """Fork; returns the process id, which is also that of a process group."""
    process = os.fork()
    if process == 0:
        _child(attempt, output)
    return process


PATIENCE = 6
"""How many times its limit an attempt may take while it is busy or waits for a processor."""


def _busy(groups: set[int]) -> bool:
    """Whether a process of these groups is running, or waits for a processor or a disk."""
    for status in Path('/proc').glob('[0-9]*/stat'):
        try:
            fields = status.read_text().rpartition(')')[2].split()  # state, parent, group, ...
        except OSError:
            continue
        if int(fields[2]) in groups and fields[0] in 'RD':
            return True
    return False


def wait(process: int, seconds: float) -> int | None:
    """The status from ``os.waitpid``; None after so many seconds, when the whole group is killed."""
    return wait_for([process], seconds).get(process)


def wait_for(processes: list[int], seconds: float, stopped: int | None = None) -> dict[int, int]:
    """The status of each process that ends within so many seconds; then all groups are killed.

    A process that was busy in the last tenth of the time gets the same time again, up to :data:`PATIENCE` times: on a
    loaded machine slow is not hanging, while an endless loop still is. A ``stopped`` process is not waited for.
    """
    statuses: dict[int, int] = {}
    for _ in range(PATIENCE):
        if not _wait_once([process for process in processes if process != stopped], statuses, seconds):
            break
    for process in processes:
        try:
            os.killpg(process, signal.SIGKILL)  # including processes that it left running
        except ProcessLookupError:
            if process not in statuses:  # it has not made its group yet
                os.kill(process, signal.SIGKILL)
    for process in processes:
        if process not in statuses:
            os.waitpid(process, 0)
    return statuses


def _wait_once(processes: list[int], statuses: dict[int, int], seconds: float) -> bool:
    """Fill ``statuses``; returns whether some have not ended and were busy in the last tenth of the time."""
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
    return busy or _busy({process for process in processes if process not in statuses})  # or it slept then


def classify(status: int | None, text: str, must_fail: bool, canary: Path | None) -> str:
    """The outcome, from the status of a process and its output."""
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
    reported = any(word in text.lower() for word in _WORDS_OF_ERROR)
    return 'traceback' if 'Traceback (most recent call last)' in text or not reported else 'clear error'


def last_line(text: str) -> str:
    """The last line that an attempt printed."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1][:300] if lines else ''


def carry_out(attempt: Attempt, canary: Path | None = None) -> Result:
    """Run one attempt in a separate process, and check what it leaves behind."""
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
