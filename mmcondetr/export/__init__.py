"""Exports a detector to a file that runs without PyTorch: ONNX or OpenVINO, verified against the model."""

from mmcondetr.export.exporting import FORMATS, export_detector

__all__ = ['FORMATS', 'export_detector']
