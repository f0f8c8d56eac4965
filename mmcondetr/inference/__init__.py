"""Inference with a trained detector in PyTorch: loading, predicting, optimising, and mmdet's DetInferencer."""

from mmcondetr.inference.det_inferencer import DetInferencer
from mmcondetr.inference.detections import Detections
from mmcondetr.inference.exported_detector import ExportedDetector
from mmcondetr.inference.load_detector import load_detector
from mmcondetr.inference.optimize import PRECISIONS, optimize_for_inference
from mmcondetr.inference.optimize_hook import OptimizeForInferenceHook
from mmcondetr.inference.predictor import Detector

__all__ = [
    'PRECISIONS',
    'DetInferencer',
    'Detections',
    'Detector',
    'ExportedDetector',
    'OptimizeForInferenceHook',
    'load_detector',
    'optimize_for_inference',
]
