"""Print the parameters and GFLOPs (multiply-adds) of configs.

python tools/model_complexity.py configs/conditional_detr/conditional-detr_r50_8xb2-50e_coco.py
"""

import argparse

import mmcondetr  # noqa: F401  (before anything of mmdet)
from tools.model_zoo.complexity import measure, read_sizes


def main() -> None:
    parser = argparse.ArgumentParser(description='Parameters and GFLOPs (multiply-adds) of configs.')
    parser.add_argument('configs', nargs='+', help='config files')
    parser.add_argument('--sizes', help='COCO-style JSON; average over its image sizes (resized to 800 / 1333)')
    parser.add_argument(
        '--size',
        nargs=2,
        type=int,
        default=(1066, 800),
        metavar=('WIDTH', 'HEIGHT'),
        help='instead, one image size before resizing (default: 1066 800)',
    )
    args = parser.parse_args()
    from mmengine import Config

    sizes = read_sizes(args.sizes) if args.sizes else [tuple(args.size)]
    for path in args.configs:
        complexity = measure(Config.fromfile(path), sizes)
        print(
            f'{path}: {complexity.parameters / 1e6:.2f} M parameters, '
            f'{complexity.multiply_adds / 1e9:.1f} GFLOPs (multiply-adds)'
        )
