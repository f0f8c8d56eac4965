"""Repair a COCO annotation file: boxes of another format or scale, swapped image sizes, ids, images listed twice.

    mmcondetr convert-annotations train.json train_fixed.json --boxes xyxy
    mmcondetr convert-annotations train.json train_fixed.json --boxes xyxy --mixed      # in some of the images only
    mmcondetr convert-annotations train.json train_fixed.json --image-sizes photos
    mmcondetr convert-annotations train.json train_fixed.json --merge-images
    mmcondetr convert-annotations train.json train_fixed.json --integer-ids --add-to-category-ids 1

Errors about annotations suggest the matching command. Everything else in the file is copied unchanged. The config must
then name the new file.
"""

import argparse

from mmcondetr.datasets.box_formats import FORMATS
from mmcondetr.datasets.repairing import convert_annotations
from mmcondetr.terminal import say

USER_ERROR = 1


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument('source', help='a COCO JSON')
    parser.add_argument('target', help='the file to write')
    parser.add_argument(
        '--boxes',
        choices=FORMATS,
        help="the format of the source's boxes: corners; centre, width, height; yx: y before x; 01: as fractions of "
        'the image, 100: in percent of it',
    )
    parser.add_argument(
        '--mixed',
        action='store_true',
        help='convert or scale only boxes that are wrong for certain: fractions, or those of images that a box exceeds',
    )
    parser.add_argument('--scale', type=float, help='multiply boxes, areas and outlines (images resized without them)')
    parser.add_argument('--clip', action='store_true', help='clip boxes to their images, drop those outside')
    parser.add_argument('--image-sizes', metavar='FOLDER', help='take width and height from the image files in FOLDER')
    parser.add_argument(
        '--merge-images', action='store_true', help='make one entry, with all annotations, of those that name one file'
    )
    parser.add_argument('--integer-ids', action='store_true', help='write ids that are strings of digits as integers')
    parser.add_argument(
        '--add-to-category-ids',
        type=int,
        default=0,
        metavar='N',
        help="added to the annotations' category_id, usually 1",
    )
    parser.add_argument('--force', action='store_true', help='replace the target')


def run(args: argparse.Namespace) -> None:
    options = dict(boxes=args.boxes, integer_ids=args.integer_ids, add_to_category_ids=args.add_to_category_ids)
    options.update(mixed=args.mixed, scale=args.scale, clip=args.clip, image_sizes=args.image_sizes)
    options.update(merge_images=args.merge_images)
    say(convert_annotations(args.source, args.target, **options, force=args.force))
