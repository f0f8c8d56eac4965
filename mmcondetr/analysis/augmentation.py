"""Training samples before and after augmentation."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image

from mmcondetr.datasets.read_image import read_image
from mmcondetr.datasets.segmentation import decode_mask
from mmcondetr.inference.detections import name_of
from mmcondetr.inference.drawing import colour_of, draw_boxes
from mmcondetr.inference.mask_drawing import paint_masks


def draw_samples(dataset: Any, count: int = 6, times: int = 2, seed: int = 0) -> list[tuple[Image.Image, str]]:
    """Some images with their boxes, and masks if the data set loads them, each followed by augmented versions.

    Args:
        dataset: the training data, whose pipeline ends with PackDetInputs.
        count: number of images, spread over the data set.
        times: number of augmented versions per image.
        seed: of the augmentation.
    """
    from mmengine.runner import set_random_seed

    set_random_seed(seed)
    names = dataset.metainfo.get('classes', ())
    shown = []
    for index in np.unique(np.linspace(0, len(dataset) - 1, min(count, len(dataset))).astype(int)):
        info = dataset.get_data_info(int(index))
        boxes = np.array([entry['bbox'] for entry in info['instances']]).reshape(-1, 4)
        labels = [entry['bbox_label'] for entry in info['instances']]
        name = os.path.basename(info['img_path'])
        pixels = read_image(info['img_path'])
        size = f'{pixels.shape[1]} x {pixels.shape[0]}'
        outlines = [entry['mask'] for entry in info['instances'] if 'mask' in entry]
        masks = np.array([decode_mask(outline, *pixels.shape[:2]) for outline in outlines])
        shown.append((_draw(pixels, boxes, labels, names, masks), f'{name} ({size})'))
        for number in range(times):
            packed = dataset[int(index)]
            pixels = packed['inputs'].permute(1, 2, 0).numpy()
            truth = packed['data_samples'].gt_instances
            boxes = getattr(truth.bboxes, 'tensor', truth.bboxes).numpy()
            size = f'{pixels.shape[1]} x {pixels.shape[0]}'
            caption = f'{name}, augmented ({number + 1}), {size}'
            masks = truth.masks.to_ndarray().astype(bool) if 'masks' in truth else ()
            shown.append((_draw(pixels, boxes, truth.labels.tolist(), names, masks), caption))
    return shown


def _draw(
    pixels: np.ndarray, boxes: np.ndarray, labels: list[int], names: tuple[str, ...], masks: Sequence[np.ndarray]
) -> Image.Image:
    """Draw boxes with names over masks, one of each box or none at all."""
    colours = [colour_of(label) for label in labels]
    pixels = np.ascontiguousarray(pixels)
    if len(masks):
        pixels = paint_masks(pixels, masks, colours)
    return draw_boxes(pixels, boxes, colours, [name_of(names, label) for label in labels])
