"""Traces a detector and writes it as ONNX or OpenVINO; leaves no file that is incomplete or differs from the model."""

from __future__ import annotations

import logging
import os
import tempfile
import warnings
from collections.abc import Callable, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import nn

from mmcondetr.errors import UserError
from mmcondetr.export.formats import convert_to_openvino, write_onnx
from mmcondetr.export.graph import DetectionGraph
from mmcondetr.export.quantizing import quantize_backbone
from mmcondetr.export.verifying import LIMIT, MASK_LIMIT, Comparison, compare, table
from mmcondetr.runtime.metadata import Metadata
from mmcondetr.runtime.sessions import INPUTS, MASKS, OUTPUTS, open_session
from mmcondetr.writing import replacing

FORMATS = ('onnx', 'openvino')
OPSET = 18
#: Smaller images have a feature map of one row or column, which would be traced as a special case.
LEAST_SIDE = 33
_MOST_SIDE, _MOST_IMAGES = 1 << 14, 1 << 10


def export_detector(
    detector: nn.Module,
    metadata: Metadata,
    out: str | os.PathLike,
    format: str = 'onnx',
    batch: int | None = None,
    verify: Sequence[np.ndarray] = (),
    calibration: Sequence[np.ndarray] = (),
    report: Callable[[str], None] = print,
) -> list[Comparison]:
    """Write a detector to a file; if anything fails, ``out`` is unchanged.

    Args:
        detector: on a CPU, with its weights loaded.
        metadata: see :func:`mmcondetr.export.describing.describe`.
        out: the file, ``.onnx`` or ``.xml``; the latter's weights are written into a ``.bin`` beside it.
        format: 'onnx' or 'openvino'.
        batch: images per batch; None for any number.
        verify: images on which file and model are compared; without any, nothing is compared.
        calibration: images to quantise the backbone with; without any, everything stays in float32. OpenVINO only.
        report: receives lines for the user: one before each step, which may take a minute, and the comparisons.

    Returns:
        The comparisons on ``verify``, of the file in float32.

    Raises:
        UserError: a library is not installed, the detector cannot be exported, the file cannot be written, or its
            detections differ from the model's.
    """
    out = Path(out)
    _check_arguments(out, format, batch, calibration)
    with _one_line_if_full(out), tempfile.TemporaryDirectory(prefix='.export-', dir=out.parent) as folder:
        draft = Path(folder) / 'model.onnx'
        report('tracing the model and writing it as ONNX')
        metadata = write_onnx(trace(DetectionGraph(detector), batch), draft, metadata)
        if format == 'openvino':
            report('converting the ONNX file to OpenVINO')
            draft = convert_to_openvino(draft, metadata)
        comparisons = _verify(detector, draft, verify, report)
        if len(calibration):
            precise, metadata = draft, replace(metadata, precision='int8 backbone')
            report(f'quantising the backbone to int8, calibrated with {_count(calibration)}')
            draft = quantize_backbone(precise, calibration, metadata, report)
            if len(verify):
                report('comparing the int8 file with the model in PyTorch')
                approximate = list(compare(detector, open_session(draft), verify, approximate=True))
                report('with an int8 backbone, detections above 0.3 (no limit; mmcondetr test measures the AP):')
                report(table(approximate, limited=False))
        _move(draft, out)
    return comparisons


def _check_arguments(out: Path, format: str, batch: int | None, calibration: Sequence) -> None:
    if format not in FORMATS:
        raise UserError(f"--format must be one of {', '.join(FORMATS)}, got '{format}'.")
    ending = dict(onnx='.onnx', openvino='.xml')[format]
    if out.suffix != ending:
        raise UserError(f"--out '{out}': a file of format {format} must end in {ending}.")
    if not out.parent.is_dir():
        raise UserError(f"--out '{out}': there is no folder '{out.parent}'.")
    if batch is not None and batch < 1:
        raise UserError(f"--batch must be 'dynamic' or 1 or more, got {batch}.")
    if len(calibration) and format != 'openvino':
        raise UserError(f'--int8 works with --format openvino, got {format}.')
    for module, extra in (('onnx', 'export'), ('onnxscript', 'export'), ('openvino', 'openvino')):
        if module != 'openvino' or format == 'openvino':
            _require(module, extra)
    if not hasattr(torch.onnx, 'ONNXProgram'):
        raise UserError(f'Exporting needs torch 2.6 or later; this is {torch.__version__}.')


def _require(module: str, extra: str) -> None:
    try:
        __import__(module)
    except ImportError as error:
        raise UserError(f'{module} is not installed: pip install "mmcondetr[{extra}]".') from error


def trace(graph: DetectionGraph, batch: int | None) -> torch.onnx.ONNXProgram:
    """The graph in ONNX, with dynamic height and width and, if ``batch`` is None, a dynamic number of images.

    Raises:
        UserError: torch cannot trace the model with dynamic sizes.
    """
    images = 2 if batch is None else batch
    inputs = (
        torch.zeros(images, 3, 224, 288, dtype=torch.uint8),
        torch.tensor([[224, 288]]).repeat(images, 1),
        torch.tensor([[448, 576]]).repeat(images, 1),
    )
    first = {} if batch is not None else {0: torch.export.Dim('batch', min=1, max=_MOST_IMAGES)}
    height, width = (torch.export.Dim(name, min=LEAST_SIDE, max=_MOST_SIDE) for name in ('height', 'width'))
    shapes = ({**first, 2: height, 3: width}, first, first)
    with _quiet(), torch.no_grad():
        try:
            program = torch.export.export(graph, inputs, dynamic_shapes=shapes, strict=False)
            return torch.onnx.export(
                program,
                (),
                input_names=list(INPUTS),
                output_names=[*OUTPUTS, *(MASKS if graph.detector.mask_head is not None else ())],
                dynamic_shapes=shapes,
                opset_version=OPSET,
                dynamo=True,
                verbose=False,
            )
        except (torch.onnx.errors.OnnxExporterError, torch._dynamo.exc.UserError) as error:
            reason = next(line.strip() for line in str(error).splitlines() if line.strip())
            raise UserError(
                f'{type(graph.detector).__name__} cannot be exported with images of any size: {reason}'
            ) from error


@contextmanager
def _quiet():
    """Suppress torch's many messages that a user cannot act on."""
    logger = logging.getLogger('torch.onnx')
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')
            yield
    finally:
        logger.setLevel(level)


def _verify(
    detector: nn.Module, draft: Path, images: Sequence[np.ndarray], report: Callable[[str], None]
) -> list[Comparison]:
    if not len(images):
        return []
    report(f'comparing the file with the model in PyTorch on {_count(images)}')
    comparisons = list(compare(detector, open_session(draft), images))
    report('largest differences from the model in PyTorch (boxes in fractions of the image):')
    report(table(comparisons))
    failed = [comparison for comparison in comparisons if not comparison.passed]
    if failed:
        raise UserError(
            f'--verify: the exported file differs from the model by more than {LIMIT:g} (masks: {MASK_LIMIT:g}) '
            f'on {len(failed)} of {len(comparisons)} batches; it was not kept.'
        )
    return comparisons


def _count(images: Sequence) -> str:
    return f'{len(images)} image{"s" * (len(images) > 1)}'


def _move(draft: Path, out: Path) -> None:
    """Move a finished file to its name, after the weights of an .xml file."""
    for ending in ('.bin', '.xml') if out.suffix == '.xml' else ('.onnx',):
        with replacing(out.with_suffix(ending)) as temporary:
            os.replace(draft.with_suffix(ending), temporary)


@contextmanager
def _one_line_if_full(out: Path):
    try:
        yield
    except OSError as error:
        raise UserError(
            f"--out '{out}' cannot be written: {error.strerror or error}. Nothing was written there."
        ) from error
