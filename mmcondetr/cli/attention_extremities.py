"""Do heads attend to the extremities of boxes?

    mmcondetr attention-extremities my_config.py work_dirs/my_config --images 100

Measures over the config's test data where the mass of each head's attention map lies relative to the predicted box: in
a band around its left, right, top or bottom edge, inside or outside, each compared with chance. Prints a table, draws
it as bars, and writes the numbers as JSON. mmcondetr/visualization/extremities.py defines the regions. If objects are
large, the bands cover much of the image and the comparison means little; the command then warns.
"""

import argparse

from mmcondetr.inference import load_detector
from mmcondetr.terminal import say
from mmcondetr.visualization.extremities import measure_extremities
from mmcondetr.visualization.extremity_report import plot_table, summarise, to_markdown, write_json
from mmcondetr.visualization.maps import KINDS


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument('config', help='path of a config, or the name of one in the package')
    parser.add_argument('checkpoint', help='a checkpoint that fits it')
    parser.add_argument('--layer', type=int, default=-1, help='decoder layer, negative from the end (default: -1)')
    parser.add_argument('--kind', choices=KINDS, default='spatial', help='which maps (default: spatial)')
    parser.add_argument(
        '--score-threshold', type=float, default=0.5, help='minimum score of the detections (default: 0.5)'
    )
    parser.add_argument('--images', type=int, help='use only the first images')
    parser.add_argument(
        '--min-tokens',
        type=float,
        default=2.0,
        help='skip boxes with a side shorter than this many tokens (default: 2)',
    )
    parser.add_argument('--out', default='extremities', help='write OUT.png and OUT.json (default: extremities)')
    parser.add_argument('--device', default='cpu', help='such as cuda:0 (default: cpu)')


def run(args: argparse.Namespace) -> None:
    model = load_detector(args.config, args.checkpoint, args.device)
    from mmdet.registry import DATASETS  # not before mmcondetr is imported

    table = measure_extremities(
        model,
        DATASETS.build(model.cfg.test_dataloader.dataset),
        args.layer,
        args.kind,
        args.score_threshold,
        args.images,
        args.min_tokens,
    )
    say(to_markdown(table))
    say()
    say(summarise(table))
    plot_table(table, f'{args.out}.png')
    write_json(table, f'{args.out}.json')
    say(f'wrote {args.out}.png and {args.out}.json')
