"""Reads and checks a COCO annotation file, for training and evaluation or as a list of findings."""

from __future__ import annotations

import os
import warnings
from collections.abc import Sequence

from mmcondetr.datasets.annotation_checks import check_values
from mmcondetr.datasets.annotation_file import (
    AnnotationError,
    AnnotationFile,
    Finding,
    Report,
    name_file,
    read_annotations,
)
from mmcondetr.errors import UserError

__all__ = ['AnnotationFile', 'Finding', 'Report', 'examine', 'raise_first', 'read_checked']


def examine(
    path: str,
    classes: Sequence[str] | None = None,
    training: bool = True,
    part: str = '',
    folder: str | None = None,
) -> Report:
    """Read and check an annotation file; problems are returned as findings, not raised.

    Args:
        classes: ``metainfo['classes']`` of the config; without them, the file's own.
        training: Whether a file without any annotation is an error.
        part: Of the config that names the file, 'train', 'val' or 'test'; '' if there is none.
        folder: That the names of its images are relative to, if it is known.
    """
    try:
        file = read_annotations(path)
    except UserError as error:
        cause = error.__cause__
        finding = cause.finding if isinstance(cause, AnnotationError) else Finding('error', '$', str(error))
        return Report(errors=[finding])
    return check_values(file, classes, training, path, part, folder)


def read_checked(
    path: str,
    source: str,
    classes: Sequence[str] | None = None,
    training: bool = True,
    folder: str | None = None,
) -> AnnotationFile:
    """Read an annotation file and check its values; what works but may be unintended becomes a warning.

    Args:
        source: The config's field that names the file, for messages.
        classes: The config's.
        training: Whether a file without any annotation is an error.
        folder: That the names of its images are relative to, if it is known.

    Raises:
        UserError: The file cannot be read, or training on it would fail; the message is one line.
    """
    if not os.path.isfile(path):
        raise UserError(f"Annotation file '{path}' does not exist. It comes from {source} in the config.")
    file = read_annotations(path, source)
    report = check_values(file, classes, training, path, source.partition('_')[0], folder)
    raise_first(report, name_file(path, source))
    for finding in report.warnings:
        warnings.warn(f'{name_file(path, source)}: {finding}.', stacklevel=3)
    return file


def raise_first(report: Report, name: str) -> None:
    """Raise if there are errors: the first, and how many others there are.

    Args:
        name: Of what was checked.

    Raises:
        UserError: There is an error.
    """
    if report.errors:
        others = f' ({len(report.errors) - 1} more errors in this file.)' if report.errors[1:] else ''
        raise UserError(f'{name}: {report.errors[0]}.{others}')
