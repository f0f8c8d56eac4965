"""Find objects in images, folders, patterns and videos: pictures with boxes, and one COCO JSON.

    mmcondetr predict my_config.py work_dirs/my_config photos/ --out found
    mmcondetr predict conditional-detr_r50_8xb2-50e_coco ConditionalDETR_r50_epoch50.pth a.jpg 'b*.png' film.mp4
    mmcondetr predict my_config.py best.pth aerial.tif --tile 800        # small objects in large images

Writes OUT/pictures/..., named like the images, and OUT/predictions.json, which ``mmcondetr analyze`` reads. Boxes are
clipped to the image. A panoptic model's maps become OUT/panoptic/... and OUT/panoptic.json, in COCO's panoptic format.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import cv2
import numpy as np
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from mmcondetr.errors import UserError
from mmcondetr.inference.coco_json import CocoWriter
from mmcondetr.inference.detections import Detections
from mmcondetr.inference.optimize import keep_freed_memory
from mmcondetr.inference.panoptic_json import PanopticWriter
from mmcondetr.inference.predictor import Detector
from mmcondetr.inference.sources import Video, find_sources, is_video, name_outputs, name_relative
from mmcondetr.terminal import printable, say

PICTURES = ('.jpg', '.jpeg', '.png', '.webp')
"""JPEG stays JPEG, because a PNG of a photo is large; TIFF, which browsers do not show, becomes PNG."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument('config', help='path of a config, or the name of one in the package')
    parser.add_argument(
        'checkpoint', help="a checkpoint that fits it, in any format that mmcondetr test reads, or a run's folder"
    )
    parser.add_argument('sources', nargs='+', metavar='SOURCE', help='an image, a video, a folder or a pattern')
    parser.add_argument('--out', default='predictions', help='the folder to write (default: predictions)')
    parser.add_argument(
        '--score-threshold', type=float, default=0.3, help='drop detections below this score (default: 0.3)'
    )
    parser.add_argument(
        '--batch-size', type=int, default=1, help='maximum number of images of equal shape per batch (default: 1)'
    )
    parser.add_argument('--tile', type=int, metavar='PIXELS', help='also detect in square tiles, for small objects')
    parser.add_argument(
        '--overlap', type=float, default=0.2, help='of tiles, as a fraction of their side (default: 0.2)'
    )
    parser.add_argument('--every', type=int, default=1, metavar='N', help='use every Nth frame of a video')
    parser.add_argument('--no-pictures', action='store_true', help='write the JSON only')
    parser.add_argument('--optimize', choices=('fp32', 'bf16', 'fp16'), help='optimise inference, in this precision')
    parser.add_argument('--device', help='such as cpu or cuda:0 (default: a GPU if there is one)')


def run(args: argparse.Namespace) -> None:
    if args.every < 1:
        raise UserError(f'--every must be at least 1, got {args.every}.')
    sources = find_sources(args.sources)
    images, videos = [path for path in sources if not is_video(path)], [path for path in sources if is_video(path)]
    detector = Detector(args.config, args.checkpoint, args.device, args.optimize)
    if args.optimize and next(detector.model.parameters()).device.type == 'cpu':
        keep_freed_memory()  # the process only predicts
    options = dict(
        score_threshold=args.score_threshold, batch_size=args.batch_size, tile=args.tile, tile_overlap=args.overlap
    )
    writer, out = CocoWriter(detector.class_names), Path(args.out)
    segments = None
    if detector.num_things is not None:
        segments = PanopticWriter(detector.class_names, detector.num_things, out / 'panoptic.json')
    writers = [writer, segments] if segments else [writer]
    columns = (TextColumn('{task.description}', markup=False), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, transient=True) as progress:
        if images:
            task = progress.add_task('images', total=len(images))
            names = name_relative(images)
            targets = name_outputs(names, PICTURES, '.png')
            for path, name, target, found in zip(images, names, targets, detector.stream(images, **options)):
                for each in writers:
                    each.add(name, found)
                if not args.no_pictures:
                    found.plot(_other_file(out / 'pictures' / target, path))
                progress.advance(task)
        names = name_relative(videos)
        for path, name, target in zip(videos, names, name_outputs(names, ('.mp4',), '.mp4')):
            video = Video(path)
            task = progress.add_task(printable(os.path.basename(path)), total=-(-video.length // args.every) or None)
            found = _advancing(detector.stream(video.frames(args.every), **options), progress, task)
            drawn = None if args.no_pictures else _other_file(out / 'pictures' / target, path)
            _predict_video(video, name, found, writers, drawn, args.every)
    writer.write(out / 'predictions.json')
    say(_summary(len(writer.annotations), len(writer.images), args.score_threshold))
    if not args.no_pictures:
        say(f'wrote {out / "pictures"}')
    say(f'wrote {out / "predictions.json"}')
    if segments:
        segments.write()
        say(f'wrote {segments.path} and {segments.folder}')


def _summary(objects: int, images: int, threshold: float) -> str:
    counted = f'{objects} object{"s" * (objects != 1)}' + f' above score {threshold:g}' * (threshold > 0)
    hint = '; a lower --score-threshold shows less certain ones' if not objects and threshold > 0 else ''
    return f'{counted} in {images} image{"s" * (images != 1)}{hint}'


def _other_file(target: Path, source: str) -> Path:
    """The target, unless it is the source, which would be lost."""
    if target.exists() and target.samefile(source):
        raise UserError(f"'{target}' is the image or video itself: pass another folder as --out.")
    return target


def _advancing(results: Iterator[Detections], progress: Progress, task: int) -> Iterator[Detections]:
    for result in results:
        progress.advance(task)
        yield result


def _predict_video(
    video: Video,
    name: str,
    results: Iterator[Detections],
    writers: Sequence[CocoWriter | PanopticWriter],
    target: Path | None,
    every: int,
) -> None:
    """Add each frame as an image of the JSON files, and write the drawn frames as a video (MP4)."""
    drawn = None
    if target is not None:
        target.parent.mkdir(parents=True, exist_ok=True)
        drawn = cv2.VideoWriter(str(target), cv2.VideoWriter_fourcc(*'mp4v'), video.rate / every, video.size)
        if not drawn.isOpened():
            raise UserError(f"OpenCV cannot write '{target}'; --no-pictures writes the JSON only.")
    for number, found in enumerate(results):
        for writer in writers:
            writer.add(f'{name}#{number * every}', found, video=name, frame=number * every)
        if drawn is not None:
            drawn.write(np.ascontiguousarray(np.asarray(found.plot())[..., ::-1]))
    if drawn is not None:
        drawn.release()
