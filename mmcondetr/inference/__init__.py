"""Running a trained detector in PyTorch: loading it, making it fast, and mmdet's DetInferencer with both."""

from mmcondetr.inference.det_inferencer import DetInferencer
from mmcondetr.inference.load_detector import load_detector
from mmcondetr.inference.optimize import PRECISIONS, optimize_for_inference
from mmcondetr.inference.optimize_hook import OptimizeForInferenceHook

__all__ = ['PRECISIONS', 'DetInferencer', 'OptimizeForInferenceHook', 'load_detector', 'optimize_for_inference']
