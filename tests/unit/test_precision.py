"""Mixed precision: training stays finite and follows float32; matching, losses and boxes never leave float32."""

from contextlib import nullcontext

import pytest
import torch
from tiny_model import batch, build, needs_fp16_on_a_cpu, tiny_config
from tiny_variants import ROOT, tiny_variant


def train(dtype, name=None, steps=50):
    """Losses of every step, with dropout off, so that float32 and mixed precision see the same model."""
    config = tiny_variant(ROOT / f'configs/{name}.py') if name else tiny_config()
    for part in ('encoder', 'decoder'):
        config[part]['layer']['dropout'] = 0.0
    config['backbone']['norm_eval'] = False  # without trained statistics, features would grow with depth
    model = build(config)
    model.init_weights()
    model.train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    scaler = torch.amp.GradScaler('cpu') if dtype == torch.float16 else None  # as --amp has it
    images, samples = batch()
    history = []
    for _ in range(steps):
        with nullcontext() if dtype == torch.float32 else torch.autocast('cpu', dtype):
            losses = model(images, samples, mode='loss')
        loss = sum(losses.values())
        optimizer.zero_grad()
        (loss if scaler is None else scaler.scale(loss)).backward()
        if scaler is not None:
            scaler.unscale_(optimizer)
        torch.nn.utils.clip_grad_norm_(model.parameters(), 0.1)
        if scaler is None:
            optimizer.step()
        else:
            scaler.step(optimizer)
            scaler.update()
        assert all(value.dtype == torch.float32 for value in losses.values())
        history.append(loss.item())
    return torch.tensor(history)


@pytest.mark.parametrize(
    'dtype, name',
    [
        (torch.bfloat16, None),
        pytest.param(torch.float16, None, marks=needs_fp16_on_a_cpu),
        (torch.bfloat16, 'dab_detr/dab-detr_r50_8xb2-50e_coco'),
    ],
)
def test_mixed_precision_stays_finite_and_follows_fp32_for_50_steps(dtype, name):
    exact, mixed = train(torch.float32, name), train(dtype, name)
    assert mixed.isfinite().all()
    assert exact[-5:].mean() < 0.8 * exact[0]  # it does learn
    # bf16 has 8 bits: the first step agrees to some percent, later ones as far as two runs of AdamW do.
    assert mixed[0].item() == pytest.approx(exact[0].item(), rel=0.02)
    # fp16's scaler skips its first steps while it finds the scale.
    tolerance = 0.1 if dtype == torch.bfloat16 else 0.2
    assert mixed[-5:].mean().item() == pytest.approx(exact[-5:].mean().item(), rel=tolerance)


@torch.no_grad()
def test_what_moves_boxes_is_computed_in_float32_and_not_only_kept_in_it():
    """The box MLP and the anchors' update on the same features: in bf16 they would be 0.001 off."""
    torch.manual_seed(0)
    f, references = torch.randn(3, 2, 12, 32).bfloat16(), torch.randn(3, 2, 12, 2)
    head = build(tiny_config()).bbox_head
    anchors = build(tiny_variant(ROOT / 'configs/dab_detr/dab-detr_r50_8xb2-50e_coco.py')).decoder.reference_point
    for parameter in [*head.parameters(), *anchors.parameters()]:
        parameter.copy_(torch.randn(parameter.shape) * 0.3)
    anchors.use_head(head)
    position = anchors._position(*[torch.randn(2, 12, 4)] * 2, f[0].float())

    def boxes(features):
        return head(features, references)[1], anchors.move(position, features[0]).reference

    exact = boxes(f.float())
    with torch.autocast('cpu', torch.bfloat16):
        mixed = boxes(f)
    for found, expected in zip(mixed, exact):
        assert found.dtype == torch.float32
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)
    with torch.autocast('cpu', torch.bfloat16):  # the test can tell
        rounded = head.box_embed(f).float()
    assert (rounded - head.box_embed(f.float())).abs().max() > 1e-3


@pytest.mark.parametrize('dtype', [torch.bfloat16, pytest.param(torch.float16, marks=needs_fp16_on_a_cpu)])
def test_matching_losses_and_boxes_are_float32(dtype, monkeypatch):
    model = build(tiny_config())
    images, samples = batch()
    seen = {}
    matcher_cost, loss_table = model.bbox_head.matcher.cost, model.bbox_head.loss_table

    def cost(logits, boxes, labels, targets):
        seen['autocast'] = torch.empty(2, 2).mm(torch.empty(2, 2)).dtype != torch.float32
        result = matcher_cost(logits, boxes, labels, targets)
        seen['cost'] = result.dtype
        return result

    def table(logits, boxes, *rest):
        seen['inputs'] = {logits.dtype, boxes.dtype}
        return loss_table(logits, boxes, *rest)

    monkeypatch.setattr(model.bbox_head.matcher, 'cost', cost)
    monkeypatch.setattr(model.bbox_head, 'loss_table', table)
    references = []
    model.decoder.reference_point.register_forward_hook(lambda module, inputs, output: references.append(output.dtype))
    with torch.autocast('cpu', dtype):
        logits, boxes = model(images, samples, mode='tensor')
        model(images, samples, mode='loss')
    assert logits.dtype == dtype and boxes.dtype == torch.float32  # autocast was on, and stopped before the boxes
    assert seen == dict(autocast=False, cost=torch.float32, inputs={torch.float32})
    assert set(references) == {torch.float32}
