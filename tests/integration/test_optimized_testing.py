"""tools/test.py --optimize on the pretrained checkpoint: its known AP."""

import re

import pytest
from tiny import finish, start_tool

from mmcondetr.datasets.shapes import generate_shapes

CONFIG = 'configs/shapes/conditional-detr_r18_small_1xb16-24e_shapes.py'
AVERAGING = 'configs/shapes/conditional-detr_r18_small_1xb4-24e_shapes.py'  # the same model; training averages weights
START = 'configs/shapes/conditional-detr_r18_small_shapes-start.safetensors'


@pytest.mark.slow
def test_bf16_keeps_the_ap_within_two_tenths_of_a_point(root, tmp_path):
    if not (root / START).is_file():
        pytest.skip('the pretrained checkpoint is not in this checkout')
    data = tmp_path / 'shapes'
    generate_shapes(data, num_train=2, num_val=200)

    def average_precision(name: str, config: str, *options: str) -> float:
        settings = [
            f'test_dataloader.dataset.data_root={data}/',
            f'test_evaluator.ann_file={data}/annotations/val.json',
            'test_dataloader.num_workers=0',
            'test_dataloader.persistent_workers=False',
            'test_dataloader.dataset.generate.num_train=2',
        ]
        words = [root / config, root / START, '--work-dir', tmp_path / name, '--cfg-options', *settings, *options]
        output = finish(start_tool('test', *words, log=tmp_path / f'{name}.log'), tmp_path / name)
        found = re.findall(r'coco/bbox_mAP: (\d\.\d+)', output)
        assert found, output[-2000:]
        return float(found[-1])

    exact, fast = average_precision('exact', CONFIG), average_precision('fast', AVERAGING, '--optimize', 'bf16')
    assert exact > 0.4  # a trained model
    assert abs(fast - exact) <= 0.002 + 1e-9
