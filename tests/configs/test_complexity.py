"""Parameters and multiply-adds of the models against Table 1, and the counter against counting by hand."""

import json
from pathlib import Path

import pytest
import torch
from mmdet import registry
from mmdet.structures import DetDataSample
from mmengine.registry import init_default_scope
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from mmcondetr.models.attention import DotProductAttention
from mmcondetr.models.backbone import FoldingBottleneck
from tools.model_zoo import complexity, model_index

DATA = Path(__file__).parents[1] / 'data'
SIZES = complexity.read_sizes(DATA / 'coco_val2017_first100_sizes.json')
PAPER = json.loads((DATA / 'conditional_detr_table1.json').read_text())['rows']
MODELS = [
    'conditional-detr_r50_8xb2-50e_coco',
    'conditional-detr_r50-dc5_8xb1-50e_coco',
    'conditional-detr_r101_8xb2-50e_coco',
    'conditional-detr_r101-dc5_8xb1-50e_coco',
]


@pytest.mark.parametrize('name', MODELS)
def test_parameters_and_gflops_are_table_1s(name, root, load_config):
    """Within 3 %. The rest is softmax, dropout, normalisation and sums, which the paper's counter includes, too."""
    counted = complexity.measure(load_config(root / f'configs/conditional_detr/{name}.py'), SIZES)
    params, gflops = counted.parameters / 1e6, counted.multiply_adds / 1e9
    assert params == pytest.approx(PAPER[name]['params (M)'], rel=0.03)
    assert gflops == pytest.approx(PAPER[name]['GFLOPs'], rel=0.03)
    for entry in model_index.read_index(root):
        if entry.metadata.get('Counted GFLOPs') and entry.config.startswith(f'configs/conditional_detr/{name[:-11]}'):
            assert (entry.metadata['Counted Parameters (M)'], entry.metadata['Counted GFLOPs']) == (
                round(params, 1),
                round(gflops, 1),
            ), entry.name


def test_what_the_paper_counts_besides_makes_up_the_rest(root, load_config):
    """R50: products plus what README.md lists give the 89.5 GFLOPs of Table 3 within 0.2 %."""
    model = complexity.build_on_meta(load_config(root / f'configs/conditional_detr/{MODELS[0]}.py'))
    besides = 0

    def count(module, args, output):
        nonlocal besides
        if isinstance(module, nn.BatchNorm2d):
            besides += 2 * output.numel()
        elif isinstance(module, (nn.LayerNorm, FoldingBottleneck)):
            besides += output.numel()
        elif isinstance(module, DotProductAttention):
            weights = module.num_heads * output.shape[1] * args[1][0].shape[1]
            besides += (5 + 1) * weights + sum(part.numel() for part in args[0])

    for module in model.modules():
        module.register_forward_hook(count)
        if isinstance(module, nn.BatchNorm2d):
            module.train()  # else the backbone folds it into the convolution before it
    sizes = [complexity.resized(size) for size in SIZES[::20]]  # five, for time; only the share is taken
    products = sum(complexity.count_multiply_adds(model, size) for size in sizes)
    share = besides / products
    assert 88.681 * (1 + share) == pytest.approx(89.5, rel=2e-3)


@pytest.mark.slow
@pytest.mark.parametrize(
    'name',
    [
        'deformable-detr_r50_single-scale_16xb2-50e_coco',
        'deformable-detr_r50-dc5_single-scale_16xb2-50e_coco',
        'deformable-detr_r50_16xb2-50e_coco',
    ],
)
def test_deformable_detrs_gflops_are_the_tables(name, root, load_config):
    """Its shapes depend on values, so that it runs on a CPU: at two sizes, for its cost is linear in pixels."""
    config = load_config(root / f'configs/baselines/{name}.py')
    init_default_scope('mmdet')
    model = registry.MODELS.build(config.model).eval().requires_grad_(False)
    (small, few), (large, many) = (
        (width * height, count_on_a_cpu(model, width, height)) for width, height in ((256, 192), (512, 384))
    )
    slope = (many - few) / (large - small)
    pixels = sum(width * height for width, height in map(complexity.resized, SIZES)) / len(SIZES)
    entry = next(entry for entry in model_index.read_index(root) if Path(entry.config).stem == name)
    assert entry.metadata['Counted GFLOPs'] == pytest.approx((few + slope * (pixels - small)) / 1e9, rel=0.01)
    parameters = sum(value.numel() for value in model.parameters())
    assert entry.metadata['Counted Parameters (M)'] == round(parameters / 1e6, 1)


def count_on_a_cpu(model, width, height):
    sample = DetDataSample(metainfo=dict(img_shape=(height, width), batch_input_shape=(height, width)))
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model(torch.zeros(1, 3, height, width), [sample], mode='tensor')
    return counter.get_total_flops() / 2


@pytest.mark.parametrize(
    'size, expected',
    [((640, 480), (1067, 800)), ((480, 640), (800, 1067)), ((2000, 500), (1333, 333)), ((800, 800), (800, 800))],
)
def test_resized(size, expected):
    assert complexity.resized(size) == expected


def test_there_are_100_sizes():
    assert len(SIZES) == 100 and SIZES[0] == (640, 426)


def test_file_without_sizes_is_named(tmp_path):
    path = tmp_path / 'none.json'
    path.write_text('{"images": [{"id": 1}]}')
    with pytest.raises(ValueError, match=r'none\.json: field "images"'):
        complexity.read_sizes(path)


class OneAttention(nn.Module):
    """As a detector to the counter: attends from 5 queries of two parts (width 2 x 8) to 7 keys, values of width 8."""

    def __init__(self):
        super().__init__()
        self.attention = DotProductAttention(num_heads=2, dropout=0.0)

    def forward(self, inputs, data_samples, mode):
        query, key = inputs.new_empty(1, 5, 8), inputs.new_empty(1, 7, 8)
        return self.attention((query, query), (key, key), key)


def test_attention_counts_needed_products_only():
    # 5 x 7 pairs: 16 channels of q.k and 8 of the value; the value's padding to 16 for fused kernels does not count.
    assert complexity.count_multiply_adds(OneAttention(), (32, 32)) == 5 * 7 * (16 + 8)


class LinearAndConvolution(nn.Module):
    def __init__(self):
        super().__init__()
        with torch.device('meta'):
            self.conv, self.linear = nn.Conv2d(3, 4, 3, padding=1), nn.Linear(4, 6)

    def forward(self, inputs, data_samples, mode):
        return self.linear(self.conv(inputs).mean((2, 3)))


def test_linear_and_convolution_count_multiply_adds():
    assert complexity.count_multiply_adds(LinearAndConvolution().requires_grad_(False), (10, 20)) == (
        10 * 20 * 4 * 27 + 4 * 6
    )


def test_turned_images_cost_the_same(root, load_config):
    model = complexity.build_on_meta(load_config(root / 'configs/_base_/models/conditional-detr_r18_small.py'))
    assert complexity.count_multiply_adds(model, (97, 160)) == complexity.count_multiply_adds(model, (160, 97)) > 0


@pytest.mark.parametrize(
    'name',
    [
        'conditional_detr/conditional-detr_r50_8xb2-50e_coco',
        'dab_detr/dab-detr_r50-dc5_3-patterns_8xb1-50e_coco',
        'baselines/detr_r50-dc5_8xb1-50e_coco',
    ],
)
def test_parts_sum_up_to_the_whole(name, root, load_config):
    config = load_config(root / f'configs/{name}.py')
    model = complexity.build_on_meta(config)
    sizes = [(800, 1067), (333, 1333), (801, 803)]
    by_parts = complexity.count_by_parts(config, model, sizes)
    assert by_parts == {size: complexity.count_multiply_adds(model, size) for size in sizes}


def test_a_model_of_another_degree_is_not_counted_by_parts(root, load_config):
    config = load_config(root / 'configs/_base_/models/conditional-detr_r18_small.py')
    model = complexity.build_on_meta(config)
    encode = model.encode

    def encode_twice_large_maps(features, padding):
        for _ in range(features.shape[-1] > 10):
            encode(features, padding)
        return encode(features, padding)

    model.encode = encode_twice_large_maps
    with pytest.raises(ValueError, match=r'an image of \(640, 480\) pixels costs \d+ multiply-adds, and its parts \d+'):
        complexity.count_by_parts(config, model, [(320, 240), (640, 480)])
