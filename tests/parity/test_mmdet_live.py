"""Our R50 beside mmdet's own ConditionalDETR, live, on the same weights: outputs, losses and gradients.

The weights are those of weights.py, under which tokens and queries stay apart; two images, the second one padded.
"""

import pytest
import torch
import weights
from mmdet.registry import MODELS
from mmengine.config import Config
from mmengine.registry import DefaultScope
from tiny_model import sample

from mmcondetr.checkpoints.renaming import from_ours, to_ours
from mmcondetr.checkpoints.rules import FAMILIES
from mmcondetr.engine.config import find_config

pytestmark = pytest.mark.slow
OUTPUT_TOLERANCE = 1e-5
LOSS_TOLERANCE = 1e-5


def build(config: str, tensors: dict) -> torch.nn.Module:
    model_config = Config.fromfile(config).model
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
    ours = build(find_config('conditional-detr_r50_8xb2-50e_coco'), tensors)
    theirs = build('mmdet::conditional_detr/conditional-detr_r50_8xb2-50e_coco.py',
                   from_ours(tensors, FAMILIES['mmdet'], 'weights.py'))
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


def test_losses_and_gradients_agree(models):
    ours, theirs = models
    images, samples = batch()
    losses, their_losses = (model(images, samples, mode='loss') for model in models)
    assert set(losses) == set(their_losses)
    for name, value in their_losses.items():
        assert torch.allclose(losses[name], value, rtol=0, atol=LOSS_TOLERANCE), name
    sum(losses.values()).backward()
    sum(their_losses.values()).backward()
    gradients = {name: value.grad for name, value in ours.named_parameters() if value.grad is not None}
    theirs = {name: value.grad for name, value in theirs.named_parameters() if value.grad is not None}
    theirs, _ = to_ours(theirs, FAMILIES['mmdet'], 'gradients')
    assert set(gradients) == set(theirs)
    for name, gradient in gradients.items():
        difference, size = (gradient - theirs[name]).norm(), theirs[name].norm()
        assert difference <= 1e-4 * size + 1e-6, f'{name}: {difference:.3g} of {size:.3g}'
