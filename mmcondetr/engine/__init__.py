"""Running: checkpoints that survive a kill, safe reading of files, and checks before training starts."""

from mmcondetr.engine.amp import CPUAmpOptimWrapper
from mmcondetr.engine.checkpoint_hook import CheckpointHook
from mmcondetr.engine.checkpoint_io import load_file
from mmcondetr.engine.class_check import CheckClassesHook
from mmcondetr.engine.coco_metric import CocoMetric
from mmcondetr.engine.errors import NonFiniteLossError, UserError
from mmcondetr.engine.inference_hook import OptimizeForInferenceHook

__all__ = [
    'CPUAmpOptimWrapper', 'CheckClassesHook', 'CheckpointHook', 'CocoMetric', 'NonFiniteLossError',
    'OptimizeForInferenceHook', 'UserError', 'load_file'
]
