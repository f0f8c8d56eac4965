"""Running: launching, hooks, resuming, testing and COCO metrics."""

from mmcondetr.engine.amp import CPUAmpOptimWrapper
from mmcondetr.engine.check_classes_hook import CheckClassesHook
from mmcondetr.engine.checkpoint_hook import CheckpointHook
from mmcondetr.engine.coco_metric import CocoMetric
from mmcondetr.engine.coco_panoptic_metric import CocoPanopticMetric
from mmcondetr.engine.match_classes_hook import MatchClassesHook
from mmcondetr.engine.visualization_hook import VisualizationHook

__all__ = [
    'CPUAmpOptimWrapper',
    'CheckClassesHook',
    'CheckpointHook',
    'CocoMetric',
    'CocoPanopticMetric',
    'MatchClassesHook',
    'VisualizationHook',
]
