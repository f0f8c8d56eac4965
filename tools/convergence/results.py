"""Results of runs: one JSON per run in a work directory, and all of a comparison in its report, convergence.json."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from mmcondetr.errors import UserError
from mmcondetr.writing import replacing

STEP_SECONDS = 'step_seconds.json'  # in a work directory: the measured training steps of each system
_COMPARABLE = ('epochs', 'base', 'backbone')  # the same in all runs of a comparison
_RUN = {'system', 'seed', 'steps', 'ap', *_COMPARABLE}


def path(work_dir: Path, system: str, seed: int) -> Path:
    """Where the result of a run is; its folder is beside it, under the same name."""
    return work_dir / f'{system}_seed{seed}.json'


def write(result: Path, content: Mapping[str, Any]) -> None:
    """Write a JSON at once."""
    with replacing(result) as temporary:
        temporary.write_text(json.dumps(content) + '\n')


def read(result: Path) -> dict:
    """The result of one run.

    Raises:
        UserError: it does not exist, or is no JSON.
    """
    return _read(result, ': delete it to train that run again.')


def read_runs(work_dir: Path) -> list[dict]:
    """The results of all finished runs in a folder.

    Raises:
        UserError: there is none, or one is damaged.
    """
    runs = [read(result) for result in sorted(work_dir.glob('*_seed*.json'))]
    if not runs:
        raise UserError(f"'{work_dir}' contains no finished run (<system>_seed<number>.json).")
    return runs


def read_report(report: Path) -> dict:
    """The report of a comparison.

    Raises:
        UserError: it does not exist, or is another file.
    """
    found = _read(report, '.')
    runs = found.get('runs') if isinstance(found, dict) else None
    if not runs or not all(isinstance(run, dict) and set(run) >= _RUN for run in runs):
        raise UserError(f"'{report}' is not the convergence.json of a comparison: it contains no list 'runs' of them.")
    return found


def step_seconds(work_dir: Path) -> dict[str, Sequence[float]]:
    """The seconds of each system's training steps, if they were measured."""
    measured = work_dir / STEP_SECONDS
    return _read(measured, ': delete it and run --time-steps again.') if measured.is_file() else {}


def adopt(report: Mapping[str, Any], work_dir: Path) -> None:
    """Put the runs and times of a report into a work directory, which keeps those of its own."""
    work_dir.mkdir(parents=True, exist_ok=True)
    for run in report['runs']:
        result = path(work_dir, run['system'], run['seed'])
        if not result.exists():
            write(result, run)
    times = {name: [system['step_seconds']] for name, system in report['systems'].items() if 'step_seconds' in system}
    if times and not (work_dir / STEP_SECONDS).exists():
        write(work_dir / STEP_SECONDS, times)


def check_comparable(runs: Iterable[Mapping[str, Any]]) -> None:
    """Check that runs have one budget, one base and one start.

    Raises:
        UserError: they have not.
    """
    runs = list(runs)
    for field in _COMPARABLE:
        values = {str(run.get(field)) for run in runs}
        if len(values) > 1:
            raise UserError(
                f"The runs cannot be compared: field '{field}' is {', '.join(sorted(values))}. Keep each "
                'comparison in a --work-dir of its own.'
            )


def check_same(earlier: Path, asked: Mapping[str, Any]) -> None:
    """Check that an earlier run is the one that is asked for.

    Raises:
        UserError: it is not.
    """
    found = read(earlier)
    for field, value in asked.items():
        if found.get(field) != value:
            raise UserError(
                f"{earlier}: field '{field}' is {found.get(field)}, but {value} is requested. Pass another "
                '--work-dir, or delete the run to train it again.'
            )


def _read(file: Path, advice: str) -> Any:
    try:
        return json.loads(file.read_text())
    except OSError as error:
        raise UserError(f"'{file}' cannot be read: {error.strerror}.") from error
    except ValueError as error:
        raise UserError(f"'{file}' is no JSON ({error}){advice}") from error
