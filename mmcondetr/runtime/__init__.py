"""Running exported detectors without torch and mmdet: NumPy, OpenCV and ONNX Runtime or OpenVINO are enough.

from mmcondetr.runtime import Detector

detections = Detector('model.onnx')('image.jpg')
"""

from mmcondetr.runtime.runner import Detections, Detector

__all__ = ['Detections', 'Detector']
