"""Mend a COCO annotation file whose boxes have another format, or whose ids do not match.

    mmcondetr convert-annotations train.json train_mended.json --boxes xyxy
    mmcondetr convert-annotations train.json train_mended.json --integer-ids --add-to-category-ids 1

Errors about annotations name the command that fits. Everything that is not named here is copied as it is.
"""

import argparse

from mmcondetr.datasets.box_formats import FORMATS
from mmcondetr.datasets.mending import convert_annotations

USER_ERROR = 1


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument('source', help='a COCO JSON')
    parser.add_argument('target', help='the file to write')
    parser.add_argument(
        '--boxes',
        choices=FORMATS,
        help="the format of the source's boxes: x1, y1, x2, y2; centre, width, height; 01: as fractions of the image",
    )
    parser.add_argument('--integer-ids', action='store_true', help='write ids that are strings of digits as numbers')
    parser.add_argument('--add-to-category-ids', type=int, default=0, metavar='N', help="to the annotations', mostly 1")
    parser.add_argument('--force', action='store_true', help='replace the target')


def run(args: argparse.Namespace) -> None:
    options = dict(boxes=args.boxes, integer_ids=args.integer_ids, add_to_category_ids=args.add_to_category_ids)
    print(convert_annotations(args.source, args.target, **options, force=args.force))
