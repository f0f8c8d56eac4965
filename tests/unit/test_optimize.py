"""optimize_for_inference: the same detections, fewer parts."""

import copy
import platform
import subprocess
import sys
from argparse import Namespace

import pytest
import torch
from mmdet.registry import MODELS
from mmengine.config import Config
from mmengine.registry import DefaultScope
from mmengine.runner import Runner
from tiny_model import batch, build, needs_fp16_on_a_cpu, tiny_config
from torch import nn

from mmcondetr.engine.testing import apply_testing_options
from mmcondetr.errors import UserError
from mmcondetr.inference.det_inferencer import DetInferencer
from mmcondetr.inference.optimize import optimize_for_inference
from mmcondetr.inference.optimize_hook import OptimizeForInferenceHook


def trained(backbone='mmcondetr.ResNet'):
    """A model whose BatchNorms do something and whose queries stay apart, so that equality is meaningful."""
    config = tiny_config()
    config['backbone']['type'] = backbone
    model = build(config)
    generator = torch.Generator().manual_seed(1)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_var.copy_(1.5 + torch.rand(module.running_var.shape, generator=generator))
            module.running_mean.copy_(torch.rand(module.running_mean.shape, generator=generator) * 0.2 - 0.1)
    with torch.no_grad():
        model.query_embedding.weight.mul_(4)
        model.bbox_head.class_embed.weight.mul_(4)
        for name, parameter in model.decoder.named_parameters():
            if parameter.dim() > 1:
                residual = name.endswith(('out_proj.weight', 'linear2.weight'))
                parameter.mul_(8 if 'cross_attn.value' in name else 0.3 if residual else 2)
    return model


@torch.no_grad()
def outputs(model):
    images, samples = batch()
    return model(images, samples, mode='tensor')


@pytest.mark.parametrize('backbone', ['mmcondetr.ResNet', 'mmdet.ResNet'])
def test_float32_gives_the_same_boxes_and_detections(backbone):
    model = trained(backbone)
    optimized = optimize_for_inference(copy.deepcopy(model))
    (logits, boxes), (fast_logits, fast_boxes) = outputs(model), outputs(optimized)
    assert logits[-1].std(dim=1).mean() > 0.03  # queries differ: equality says something
    torch.testing.assert_close(fast_boxes, boxes, rtol=0, atol=1e-4)
    torch.testing.assert_close(fast_logits, logits, rtol=0, atol=1e-4)
    with pytest.raises(RuntimeError, match='cannot be trained'):
        optimized(*batch(), mode='loss')
    with torch.no_grad():
        a, b = (m(*batch(), mode='predict')[1].pred_instances for m in (model, optimized))
    assert torch.equal(a.labels, b.labels)
    torch.testing.assert_close(a.bboxes, b.bboxes, rtol=0, atol=1e-4 * 128)  # pixels of a 128 pixel wide image


@pytest.mark.parametrize(
    'dtype, tolerance', [(torch.bfloat16, 0.05), pytest.param(torch.float16, 0.01, marks=needs_fp16_on_a_cpu)]
)
def test_lower_precision_stays_near_and_boxes_stay_float32(dtype, tolerance):
    model = trained()
    optimized = optimize_for_inference(copy.deepcopy(model), dtype)
    (logits, boxes), (fast_logits, fast_boxes) = outputs(model), outputs(optimized)
    assert fast_boxes.dtype == torch.float32
    assert (fast_boxes - boxes).abs().max() < tolerance
    assert (fast_logits.float() - logits).abs().mean() < tolerance * logits.std()
    assert optimized.encoder.layers[0].ffn.linear1.weight.dtype == dtype
    exact = [*optimized.bbox_head.parameters(), *optimized.decoder.reference_point.parameters()]
    assert {parameter.dtype for parameter in exact} == {torch.float32}


def test_what_only_training_needs_is_gone():
    optimized = optimize_for_inference(trained())
    assert not any(isinstance(module, nn.BatchNorm2d) for module in optimized.modules())
    assert not any(parameter.requires_grad for parameter in optimized.parameters())
    assert not any(module.training for module in optimized.modules())
    assert not hasattr(optimized.bbox_head, 'loss_cls') and not hasattr(optimized.bbox_head, 'matcher')
    weight = optimized.backbone.layer1[0].conv2.weight
    assert weight.is_contiguous(memory_format=torch.channels_last)


def test_other_precisions_are_refused():
    with pytest.raises(ValueError, match='float64'):
        optimize_for_inference(trained(), torch.float64)
    with pytest.raises(UserError, match="fp32, bf16, fp16, got 'int8'"):
        OptimizeForInferenceHook('int8')


def test_the_hook_finds_the_detector_in_its_wrappers(monkeypatch):
    class Wrapper(nn.Module):
        def __init__(self, module):
            super().__init__()
            self.module = module

    runner = object.__new__(Runner)
    runner.model = Wrapper(Wrapper(trained()))
    logger = type('Logger', (), dict(info=lambda self, text: None))()
    monkeypatch.setattr(Runner, 'logger', logger, raising=False)
    OptimizeForInferenceHook('bf16').before_test(runner)
    assert runner.model.module.module.encoder.layers[0].ffn.linear1.weight.dtype == torch.bfloat16


def another_packages_detector(root, system):
    config = Config.fromfile(root / f'configs/shapes/{system}_r18_small_1xb16-24e_shapes.py')
    with DefaultScope.overwrite_default_scope('mmdet'):
        model = MODELS.build(config.model)
        model.init_weights()
    return model.eval()


@pytest.mark.parametrize('system', ['detr', 'deformable-detr'])
def test_another_packages_detector_gives_the_same_detections(root, system):
    torch.manual_seed(0)
    model = another_packages_detector(root, system)
    optimized = optimize_for_inference(copy.deepcopy(model))
    assert not any(isinstance(module, nn.BatchNorm2d) for module in optimized.modules())
    with torch.no_grad():
        expected, found = (m(*batch(), mode='predict')[1].pred_instances for m in (model, optimized))
    assert len(found) == len(expected) > 0
    torch.testing.assert_close(found.scores, expected.scores, rtol=0, atol=1e-4)
    order, other = (torch.argsort(x.scores * 1000 + x.bboxes.sum(dim=1)) for x in (expected, found))
    torch.testing.assert_close(found.bboxes[other], expected.bboxes[order], rtol=0, atol=1e-4 * 128)
    with pytest.raises(RuntimeError, match='cannot be trained'):
        optimized(*batch(), mode='loss')


def test_lower_precision_of_another_packages_detector_is_refused_before_it_is_touched(root):
    model = another_packages_detector(root, 'detr')
    names = list(model.state_dict())
    with pytest.raises(UserError, match='bfloat16 is for this .*, and DETR is not'):
        optimize_for_inference(model, torch.bfloat16)
    assert list(model.state_dict()) == names


@pytest.mark.parametrize('options, calls', [({}, 0), (dict(keep_memory=True), 1)])
def test_the_processs_allocator_is_left_alone_unless_asked(monkeypatch, options, calls):
    called = []
    monkeypatch.setattr('mmcondetr.inference.optimize.keep_freed_memory', lambda: called.append(True))
    optimize_for_inference(trained(), **options)
    assert len(called) == calls


def test_the_testing_tool_keeps_memory():
    config = Config(dict(custom_hooks=[]))
    given = dict(out=None, checkpoint='a.pth', show=False, show_dir=None, tta=False, optimize='fp32', compile=False)
    given.update(runtime=None, batch_size=None)
    apply_testing_options(config, Namespace(**given))
    assert config.custom_hooks[-1] == dict(
        type='mmcondetr.OptimizeForInferenceHook', precision='fp32', compile=False, keep_memory=True
    )


@pytest.mark.parametrize('option', ['compile', 'keep_memory'])
def test_the_inferencer_refuses_what_needs_optimize(option):
    with pytest.raises(UserError, match=f'{option} needs optimize'):
        DetInferencer('x.py', **{option: True})


PAGES = """
import resource, sys, torch
from mmcondetr.inference.optimize import keep_freed_memory
assert sys.argv[1] == 'as it is' or keep_freed_memory()
for _ in range(9):
    torch.ones(2**24)  # 64 MiB; the first ones find their place
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(9):
    torch.ones(2**24)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != 'glibc', reason='a setting of glibc')
def test_freed_memory_is_kept_for_the_next_image():
    fetched = {
        how: int(
            subprocess.run(
                [sys.executable, '-c', PAGES, how], check=True, capture_output=True, text=True
            ).stdout.split()[-1]
        )
        for how in ('as it is', 'kept')
    }
    assert fetched['as it is'] > 9 * 30  # 16384 small pages each time, or 32 large ones
    assert fetched['kept'] < fetched['as it is'] / 3
