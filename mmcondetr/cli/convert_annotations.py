"""Repair a COCO annotation file whose boxes have another format, or whose ids do not match.

    mmcondetr convert-annotations train.json train_fixed.json --boxes xyxy
    mmcondetr convert-annotations train.json train_fixed.json --integer-ids --add-to-category-ids 1

Errors about annotations suggest the matching command. Everything else in the file is copied unchanged.
"""

import argparse

from mmcondetr.datasets.box_formats import FORMATS
from mmcondetr.datasets.repairing import convert_annotations

USER_ERROR = 1


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument('source', help='a COCO JSON')
    parser.add_argument('target', help='the file to write')
    parser.add_argument(
        '--boxes',
        choices=FORMATS,
        help="the format of the source's boxes: x1, y1, x2, y2; centre, width, height; 01: as fractions of the image",
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
    print(convert_annotations(args.source, args.target, **options, force=args.force))
