"""Writes the two kinds of files, with their metadata."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch

from mmcondetr import __version__
from mmcondetr.runtime.metadata import KEY, Metadata


def write_onnx(program: torch.onnx.ONNXProgram, path: Path, metadata: Metadata) -> Metadata:
    """Write the file, without torch's annotations of each node, which contain paths of the source code.

    Returns:
        The metadata, with the graph's number of detections, which is lower if there are few queries.
    """
    import onnx

    model = program.model_proto
    graph = model.graph
    for part in (*graph.node, *graph.input, *graph.output, *graph.value_info, *graph.initializer):
        part.ClearField('metadata_props')
        part.ClearField('doc_string')
    graph.ClearField('metadata_props')
    graph.name = model.producer_name = 'mmcondetr'
    model.producer_version = __version__
    model.ClearField('metadata_props')
    metadata = replace(metadata, max_detections=graph.output[0].type.tensor_type.shape.dim[1].dim_value)
    onnx.helper.set_model_props(model, {KEY: metadata.to_json()})
    onnx.checker.check_model(model)
    path.write_bytes(model.SerializeToString())
    return metadata


def convert_to_openvino(source: Path, metadata: Metadata) -> Path:
    import openvino

    model = openvino.Core().read_model(source)
    return save_openvino(model, source.with_name('model.xml'), metadata)


def save_openvino(model, path: Path, metadata: Metadata) -> Path:
    """Write an OpenVINO model, ``path`` and the .bin beside it, with its metadata; returns ``path``."""
    import openvino

    model.set_rt_info(metadata.to_json(), [KEY])
    try:
        openvino.save_model(model, path, compress_to_fp16=False)
    except RuntimeError as error:  # OpenVINO's only type of error
        raise OSError(f'OpenVINO could not write: {str(error).strip().splitlines()[-1]}') from error
    return path
