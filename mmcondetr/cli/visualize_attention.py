"""Draw where a detector looks.

    mmcondetr visualize-attention photo.jpg my_config.py work_dirs/my_config --out attention.png

Writes a picture like the paper's Figure 4 (rows spatial, content and combined attention, columns heads) for the best
detections or for a chosen query. With ``--compare CONFIG CHECKPOINT`` one like Figure 1: spatial attention of two or
more models for the same object. With ``--html`` also a page to explore all layers and heads in a browser.
"""

import argparse
import os

from mmcondetr.errors import UserError
from mmcondetr.inference import load_detector
from mmcondetr.terminal import say
from mmcondetr.visualization import draw_attention, draw_comparison, write_explorer


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument('image', help='an image file')
    parser.add_argument('config', help='path of a config, or the name of one in the package')
    parser.add_argument('checkpoint', help='a checkpoint that fits it, in any format that mmcondetr test reads')
    parser.add_argument('--out', help='the picture to write (default: attention_<image name>.png)')
    parser.add_argument('--html', help='also write the explorer page here')
    parser.add_argument('--query', type=int, help='draw this object query (default: the best detections)')
    parser.add_argument('--layer', type=int, default=-1, help='decoder layer, negative from the end (default: -1)')
    parser.add_argument('--heads', type=int, nargs='+', help='attention heads (default: all)')
    parser.add_argument('--count', type=int, default=1, help='how many detections to draw (default: 1)')
    parser.add_argument(
        '--score-threshold', type=float, default=0.3, help='minimum score of the detections (default: 0.3)'
    )
    parser.add_argument(
        '--compare',
        nargs=2,
        action='append',
        metavar=('CONFIG', 'CHECKPOINT'),
        default=[],
        help="draw this model's spatial attention below that of the first; may be given again",
    )
    parser.add_argument('--names', nargs='+', help='titles of the compared models (default: their classes)')
    parser.add_argument('--device', default='cpu', help='such as cuda:0 (default: cpu)')


def run(args: argparse.Namespace) -> None:
    out = args.out or f'attention_{os.path.splitext(os.path.basename(args.image))[0]}.png'
    model = load_detector(args.config, args.checkpoint, args.device)
    chosen = dict(query=args.query, layer=args.layer, heads=args.heads, score_threshold=args.score_threshold)
    if args.compare:
        models = [model, *(load_detector(*other, args.device) for other in args.compare)]
        names = args.names or [type(one).__name__ for one in models]
        if len(names) != len(models):
            raise UserError(f'--names: {len(names)} names for {len(models)} models; pass one for each.')
        found = draw_comparison(list(zip(names, models)), args.image, out, **chosen)
    else:
        found = draw_attention(model, args.image, out, count=args.count, **chosen)
    for detection in found:
        box = ', '.join(f'{side:.0f}' for side in detection.box)
        say(f'query {detection.query}: {detection.name} {detection.score:.3f} at ({box})')
    say(f'wrote {out}')
    if args.html:
        write_explorer(model, args.image, args.html, query=args.query, score_threshold=args.score_threshold)
        say(f'wrote {args.html}')
