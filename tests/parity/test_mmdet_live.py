"""Our R50 beside mmdet's own ConditionalDETR, live, on the same weights: outputs, losses and gradients.

The weights are those of weights.py, under which tokens and queries stay apart; two images, the second one padded.
"""

import copy
import re

import pytest
import torch
import weights
from mmdet.registry import MODELS
from mmengine.config import Config
from mmengine.hub import get_config
from mmengine.registry import DefaultScope
from tiny_model import is_silent, sample

from mmcondetr.checkpoints.renaming import from_ours, to_ours
from mmcondetr.checkpoints.rules import FAMILIES
from mmcondetr.engine.config import find_config

pytestmark = pytest.mark.slow
OUTPUT_TOLERANCE = 1e-5
LOSS_TOLERANCE = 1e-5
# On top of weights.py: gains under which neither softmax nor 50 layers of ReLU amplify float32's rounding past 1e-5.
GAINS = (
    (r'neck.*weight', 0.25),
    (r'encoder.*in_proj.weight', 0.3),
    (r'bn3.weight', 0.5),
    (r'decoder.*(query|key)_\w+_proj.weight', 0.6),
    (r'cross_attn.value_proj', 1.5),
)


def build(config: Config, tensors: dict) -> torch.nn.Module:
    model_config = config.model
    model_config.backbone.init_cfg = None
    model = MODELS.build(model_config).eval()
    missing, unexpected = model.load_state_dict(tensors, strict=False)
    assert not unexpected and all(name.endswith('num_batches_tracked') for name in missing)
    return model


@pytest.fixture(scope='module')
def models():
    if not DefaultScope.check_instance_created('mmcondetr-tests'):
        DefaultScope.get_instance('mmcondetr-tests', scope_name='mmdet')
    authors = {name: torch.from_numpy(value) for name, value in weights.authors_state_dict(50).items()}
    tensors, _ = to_ours(authors, FAMILIES['authors'], 'weights.py')
    for name in ('bbox_head.class_embed.weight', 'bbox_head.class_embed.bias'):
        tensors[name] = tensors[name][:80].clone()
    for name, tensor in tensors.items():
        for pattern, gain in GAINS:
            if re.search(pattern, name):
                tensor.mul_(gain)
    ours = build(Config.fromfile(find_config('conditional-detr_r50_8xb2-50e_coco')), tensors)
    theirs = build(
        get_config('mmdet::conditional_detr/conditional-detr_r50_8xb2-50e_coco.py'),
        from_ours(tensors, FAMILIES['mmdet'], 'weights.py'),
    )
    return ours, theirs


def batch():
    pixels, _ = weights.batch()
    samples = []
    for targets, size in zip(weights.targets('mmdet', 80, (5, 3)), weights.IMAGE_SIZES):
        scale = torch.tensor([size[1], size[0], size[1], size[0]])
        cx, cy, width, height = torch.from_numpy(targets['boxes']).unbind(-1)
        boxes = torch.stack([cx - width / 2, cy - height / 2, cx + width / 2, cy + height / 2], dim=-1) * scale
        samples.append(sample(size, pixels.shape[-2:], boxes.tolist(), targets['labels'].tolist()))
    return torch.from_numpy(pixels), samples


def test_outputs_agree(models):
    images, samples = batch()
    with torch.no_grad():
        (logits, boxes), (their_logits, their_boxes) = (model(images, samples, mode='tensor') for model in models)
    assert logits[-1].std(dim=1).mean() > 0.03  # queries are apart, so that agreement means something
    assert torch.allclose(logits, their_logits, rtol=0, atol=OUTPUT_TOLERANCE)
    assert torch.allclose(boxes, their_boxes, rtol=0, atol=OUTPUT_TOLERANCE)


def test_losses_agree(models):
    images, samples = batch()
    with torch.no_grad():
        losses, their_losses = (model(images, samples, mode='loss') for model in models)
    assert set(losses) == set(their_losses)
    for name, value in their_losses.items():
        assert torch.allclose(losses[name], value, rtol=0, atol=LOSS_TOLERANCE), name


def test_gradients_agree(models):
    """|difference| <= 1e-4 |gradient| + 1e-6, tensor by tensor.

    ReLU's gradient jumps where an activation is within rounding of zero, which happens somewhere in any large backbone
    whose BatchNorm is folded in one implementation and not in the other (test_backbone.py compares the two). So both
    detectors use one backbone here.
    """
    ours, theirs = (copy.deepcopy(model) for model in models)
    ours.backbone = copy.deepcopy(theirs.backbone)
    images, samples = batch()
    gradients = []
    for model in (ours, theirs):
        sum(model(images, samples, mode='loss').values()).backward()
        gradients.append({name: value.grad for name, value in model.named_parameters() if value.grad is not None})
    gradients, expected = gradients[0], to_ours(gradients[1], FAMILIES['mmdet'], 'gradients')[0]
    assert set(gradients) == set(expected)
    for name, gradient in gradients.items():
        difference, size = (gradient - expected[name]).norm(), expected[name].norm()
        # Softmax does not see a key's bias: its gradient is zero but for rounding, which is that of its weight's.
        size = expected[name.replace('bias', 'weight')].norm() if is_silent(name) else size
        assert difference <= 1e-4 * size + 1e-6, f'{name}: {difference:.3g} of {size:.3g}'
