"""Detect objects in the images of a folder with an exported model: python detect_folder.py MODEL FOLDER OUT.json"""

import argparse
import json
import sys
from pathlib import Path

from mmcondetr.errors import UserError
from mmcondetr.runtime import Detector
from mmcondetr.runtime.images import list_images, read_image

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument('model', help='a .onnx or .xml file written by `mmcondetr export`')
parser.add_argument('folder', help='of images')
parser.add_argument('out', help='the JSON file to write: image -> boxes, scores, names')
parser.add_argument('--batch', type=int, default=4, help='images per batch')
parser.add_argument('--score', type=float, default=0.3, help='the least score')
args = parser.parse_args()

try:
    detector, paths, results = Detector(args.model), list_images(args.folder), {}
    if not Path(args.out).absolute().parent.is_dir():
        raise UserError(f"out '{args.out}': its folder does not exist.")
except UserError as error:
    sys.exit(f'error: {error}')
for first in range(0, len(paths), args.batch):
    batch = {}
    for path in paths[first : first + args.batch]:
        try:
            batch[path.name] = read_image(path)
        except UserError as error:
            print(f'left out: {error}', file=sys.stderr)
    for name, found in zip(batch, detector(list(batch.values()))):
        found = found.above(args.score)
        results[name] = dict(boxes=found.boxes.tolist(), scores=found.scores.tolist(), names=found.names)
with open(args.out, 'w') as file:
    json.dump(results, file)
print(f'{len(results)} images, {sum(len(found["names"]) for found in results.values())} objects: {args.out}')
