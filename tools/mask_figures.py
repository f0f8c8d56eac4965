"""Draw the masks that a model finds in the first images of its test set, or its panoptic maps, as one picture.

    python tools/mask_figures.py configs/masks/conditional-detr_r18_small-masks-frozen_1xb16-20e_shapes.py \
        work_dirs/masks/epoch_20.pth --out docs/figures/masks.png

Each pair is the image and the model's prediction.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import cv2
import torch
from mmengine.config import DictAction

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from mmcondetr.inference.drawing import colour_of  # noqa: E402
from mmcondetr.inference.mask_drawing import grid_of, paint_masks, paint_panoptic  # noqa: E402
from tools.predicted_images import load_with_images  # noqa: E402


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('config')
    parser.add_argument('checkpoint')
    parser.add_argument('--out', default='masks.png')
    parser.add_argument('--images', type=int, default=18)
    parser.add_argument('--columns', type=int, default=6, help='pairs in a row')
    parser.add_argument('--scale', type=int, default=2, help='enlargement of each image')
    parser.add_argument('--size', type=int, help='height and width of each image, ignoring its aspect ratio')
    parser.add_argument('--score', type=float, default=0.4, help='minimum score of the instances drawn')
    parser.add_argument('--cfg-options', nargs='+', action=DictAction)
    args = parser.parse_args()
    _, model, loader = load_with_images(args.config, args.checkpoint, args.cfg_options, args.images)
    pictures = []
    for data in loader:
        with torch.no_grad():
            sample = model.test_step(data)[0]
        pixels = cv2.imread(sample.img_path)
        pair = [paint_masks(pixels, [], [], args.scale), draw(pixels, sample, model, args)]
        size = (args.size, args.size) if args.size else None
        pictures += [cv2.resize(picture, size, interpolation=cv2.INTER_AREA) if size else picture for picture in pair]
    cv2.imwrite(args.out, grid_of(pictures, 2 * args.columns))


def draw(pixels, sample, model, args):
    """The panoptic map if the model has one, otherwise masks, the best on top."""
    palette = model.dataset_meta.get('palette')
    colours = palette if isinstance(palette, (list, tuple)) else [colour_of(label) for label in range(1000)]
    if 'pred_panoptic_seg' in sample:
        return paint_panoptic(pixels, sample.pred_panoptic_seg.sem_seg[0].numpy(), colours, args.scale)
    found = sample.pred_instances[sample.pred_instances.scores >= args.score].numpy()
    order = found.scores.argsort()
    return paint_masks(pixels, found.masks[order], [colours[label] for label in found.labels[order]], args.scale)


if __name__ == '__main__':
    main()
