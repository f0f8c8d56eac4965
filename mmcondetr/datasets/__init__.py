"""Data: generated shapes, checked COCO annotations and images, and augmentation that depends on the seed only."""

from mmcondetr.datasets.coco import CocoDataset
from mmcondetr.datasets.coco_panoptic import CocoPanopticDataset, LoadPanoptic
from mmcondetr.datasets.load_image import LoadImage
from mmcondetr.datasets.read_image import read_image
from mmcondetr.datasets.samplers import EpochSampler, SameShapeBatchSampler
from mmcondetr.datasets.shapes import SHAPES_CLASSES, generate_shapes
from mmcondetr.datasets.shapes_dataset import PanopticShapesDataset, ShapesDataset

__all__ = [
    'SHAPES_CLASSES',
    'CocoDataset',
    'CocoPanopticDataset',
    'EpochSampler',
    'LoadImage',
    'LoadPanoptic',
    'PanopticShapesDataset',
    'SameShapeBatchSampler',
    'ShapesDataset',
    'generate_shapes',
    'read_image',
]
