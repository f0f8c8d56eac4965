"""The mask head: its size, its outputs query by query, its losses, and the detector around it."""

from __future__ import annotations

from collections import OrderedDict

import pytest
import torch
import torch.nn.functional as F
from mmdet.models.losses import DiceLoss
from mmengine.registry import init_default_scope
from tiny_masks import TINY, masked_batch, with_masks
from tiny_model import batch, build, tiny_config
from tiny_variants import VARIANTS, tiny_variant

from mmcondetr.errors import UserError
from mmcondetr.inference.optimize import optimize_for_inference
from mmcondetr.models.attention import Memory
from mmcondetr.models.masks.mask_head import MaskHead
from mmcondetr.models.masks.mask_inputs import MaskInputs
from mmcondetr.models.masks.mask_losses import dice_loss, focal_loss


@pytest.fixture(autouse=True)
def scope():
    init_default_scope('mmdet')


def head_and_inputs(num_images: int = 2, seed: int = 0):
    """A tiny head with random weights, inputs of images of 32 x 48 pixels at stride 16, the second one padded."""
    torch.manual_seed(seed)
    settings = {name: value for name, value in TINY.items() if name != 'type'}
    head = MaskHead(**settings).eval()
    mask = torch.zeros(num_images, 6, dtype=torch.bool)
    mask[-1, 3:] = True
    laterals = [torch.randn(num_images, c, 16 // s, 24 // s) for c, s in zip((32, 64, 128), (1, 2, 4))]
    memory = Memory(torch.randn(num_images, 6, 32), torch.zeros(1, 6, 32), mask)
    return head, MaskInputs(torch.randn(num_images, 32, 2, 3), memory, laterals)


def test_the_number_of_parameters_is_detrs():
    assert sum(parameter.numel() for parameter in MaskHead().parameters()) == 1_333_657


def test_a_query_does_not_see_the_others():
    head, inputs = head_and_inputs()
    queries = [torch.randn(5, 32), torch.randn(3, 32)]
    every = head(inputs, queries)
    assert every.shape == (8, 16, 24)
    assert every.std(dim=0).mean() > 0.01, 'queries differ'
    some = head(inputs, [queries[0][[4, 1]], queries[1][[2]]])
    assert torch.allclose(some, every[[4, 1, 7]], atol=1e-5)
    none = head(inputs, [queries[0][:0], queries[1]])
    assert torch.allclose(none, every[5:], atol=1e-5)
    assert head(inputs, [queries[0][:0], queries[1][:0]]).shape == (0, 16, 24)


def test_the_shared_first_convolution_is_the_convolution_of_the_concatenation():
    head, inputs = head_and_inputs()
    maps, image = torch.rand(3, 4, 2, 3), torch.tensor([0, 1, 1])
    whole = head.convs[0](torch.cat([inputs.projected[image], maps], dim=1))
    assert torch.allclose(head._enter(inputs.projected, maps, image), whole, atol=1e-5)


def test_attention_maps_sum_to_one_over_heads_and_tokens_without_padding():
    head, inputs = head_and_inputs()
    maps = head.attention([torch.randn(2, 32), torch.randn(1, 32)], inputs.memory.content, inputs.memory.mask)
    assert torch.allclose(maps.sum(dim=(1, 2)), torch.ones(3))
    assert (maps[2, :, 3:] == 0).all() and (maps[:2] > 0).all()


def test_losses_are_those_of_their_papers():
    torch.manual_seed(0)
    logits, target = torch.randn(4, 50), (torch.rand(4, 50) < 0.3).float()
    p = logits.double().sigmoid()
    by_hand = -torch.where(target > 0, 0.25 * (1 - p) ** 2 * p.log(), 0.75 * p**2 * (1 - p).log()).mean(1)
    assert torch.allclose(focal_loss(logits, target).double(), by_hand, atol=1e-6)
    theirs = DiceLoss(use_sigmoid=True, activate=True, reduction='none', naive_dice=True, eps=1.0)
    assert torch.allclose(dice_loss(logits, target), theirs(logits, target), atol=1e-6)


def test_only_matched_queries_of_the_last_layer_lose(monkeypatch):
    """And by hand: resized to the padded batch, the mean over its pixels, divided by the number of boxes."""
    model = build(with_masks(tiny_config()))
    images, samples = masked_batch()
    losses = model.loss(images, samples)
    assert [name for name in losses if 'mask' in name or 'dice' in name] == ['loss_mask', 'loss_dice']
    inputs = model.encode_with_maps(images, samples)
    hidden, references = model.decode(images, samples)
    matches = model.bbox_head.match(hidden[-1:], references[-1:], samples)
    assert len(matches.query) == 4
    expected = torch.zeros(2)
    for image, query, target in zip(matches.image.tolist(), matches.query.tolist(), matches.target.tolist()):
        queries = [hidden[-1][each, [query] if each == image else []] for each in range(2)]
        mask = F.interpolate(model.mask_head(inputs, queries)[None], size=(96, 128), mode='bilinear')[0].flatten(1)
        truth = torch.zeros(1, 96, 128)
        one = torch.from_numpy(samples[image].gt_instances.masks.masks[target])
        truth[0, : one.shape[0], : one.shape[1]] = one
        expected += torch.cat([focal_loss(mask, truth.flatten(1)), dice_loss(mask, truth.flatten(1))]).detach()
    assert losses['loss_mask'].item() == pytest.approx(expected[0].item() / 4, rel=1e-4)
    assert losses['loss_dice'].item() == pytest.approx(expected[1].item() / 4, rel=1e-4)


def test_every_parameter_of_the_head_and_the_detector_learns():
    model = build(with_masks(tiny_config())).train()
    sum(model.loss(*masked_batch()).values()).backward()
    silent = [
        name
        for name, parameter in model.named_parameters()
        if parameter.grad is None or not parameter.grad.any()
        if name.startswith('mask_head.') and name != 'mask_head.attention.key_proj.bias'  # softmax does not see it
    ]
    assert not silent
    assert model.encoder.layers[0].ffn.linear1.weight.grad.any()


def test_an_image_without_objects():
    model = build(with_masks(tiny_config())).train()
    images, samples = masked_batch()
    for sample in samples:
        sample.gt_instances = sample.gt_instances[:0]
    losses = model.loss(images, samples)
    sum(losses.values()).backward()
    assert losses['loss_mask'] == losses['loss_dice'] == 0


def test_a_frozen_detector_stays_as_it_is():
    config = tiny_config()
    config['backbone']['norm_eval'] = False
    model = build(with_masks(config, freeze_detector=True)).train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, weight_decay=0.1)
    losses = model.loss(*masked_batch())
    assert set(losses) == {'loss_mask', 'loss_dice'}
    sum(losses.values()).backward()
    optimizer.step()
    changed = {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
    assert changed and all(name.startswith('mask_head.') for name in changed)
    assert not model.decoder.training and not model.backbone.training and model.mask_head.training
    assert not model.eval().mask_head.training


def test_masks_are_not_trained_beside_groups_of_queries_but_after_them():
    config = tiny_config()
    config['training_queries'] = dict(type='mmcondetr.QueryGroups', num_groups=2)
    with pytest.raises(
        UserError, match=r'training_queries \(QueryGroups\) cannot be trained together.*freeze_detector'
    ):
        build(with_masks(config))
    losses = build(with_masks(config, freeze_detector=True)).train().loss(*masked_batch())
    assert set(losses) == {'loss_mask', 'loss_dice'}


EVERY = r'Write out_indices=\(0, 1, 2, 3\)'
COCO_LATERALS = dict(lateral_channels=(256, 512, 1024))  # the default, of an R50 of full width


@pytest.mark.parametrize(
    'backbone, changes, message',
    [
        (dict(out_indices=(3,)), {}, rf'model.backbone.out_indices=\(3,\) .*{EVERY}\.$'),
        (dict(out_indices=(0, 1, 2)), {}, rf'out_indices=\(0, 1, 2\) .* model.neck \(256 channels\).*{EVERY}\.$'),
        (
            {},
            COCO_LATERALS,
            r'lateral_channels=\(256, 512, 1024\) .*model.mask_head.lateral_channels=\(32, 64, 128\)\.$',
        ),
        ({}, dict(lateral_channels=(64, 128)), r'Write out_indices=\(1, 2, 3\)\.$'),
        (dict(out_indices=(3,)), COCO_LATERALS, rf'{EVERY} and model.mask_head.lateral_channels=\(32, 64, 128\)\.$'),
        (
            dict(num_stages=3, strides=(1, 2, 2), dilations=(1, 1, 1)),
            {},
            r'model.backbone.out_indices=\(0, 1, 2, 3\): must be .* 0 to 2 .* the finer ones, too, \(0, 1, 2\)',
        ),
        (dict(out_indices=(3, 2, 1, 0)), {}, r'model.backbone.out_indices=\(3, 2, 1, 0\): must be .*increasing'),
        ({}, dict(embed_dims=64), 'model.mask_head.embed_dims=64: .* write embed_dims=32'),
        ({}, dict(num_heads=5), 'model.mask_head.num_heads=5: must divide model.mask_head.embed_dims=32'),
        ({}, dict(num_groups=8), r'model.mask_head.num_groups=8: .*\[36, 16, 8, 4, 2\] .* write num_groups=2,'),
        (
            {},
            dict(panoptic=dict(num_classes=4, num_things=3)),
            'panoptic.num_classes=4: must be .*bbox_head.num_classes, 5',
        ),
        ({}, dict(panoptic=dict(num_classes=5, num_things=6)), 'panoptic.num_things=6: .* num_classes=5'),
    ],
)
def test_settings_that_do_not_fit_are_named_with_the_right_value(backbone, changes, message):
    config = with_masks(tiny_config(), **changes)
    config['backbone'].update(backbone)
    with pytest.raises(UserError, match=message) as raised:
        build(config)
    assert len(str(raised.value).splitlines()) == 1


def test_a_neck_that_takes_no_feature_map_is_named():
    config = with_masks(tiny_config())
    config['neck']['in_channels'] = [100]
    with pytest.raises(UserError, match=r'model.neck.in_channels=\[100\]: .* write in_channels=\[256\]'):
        build(config)


def test_feature_maps_of_a_backbone_of_unknown_channels_are_compared_when_they_come(monkeypatch):
    monkeypatch.setattr('mmcondetr.models.masks.mask_checks._stage_channels', lambda backbone: None)
    config = with_masks(tiny_config(), lateral_channels=(32, 64))
    with pytest.raises(UserError, match=r'out_indices=\(0, 1, 2, 3\): must name 3 feature maps'):
        build(config)
    model = build(with_masks(tiny_config(), lateral_channels=(32, 64, 96)))
    message = r'lateral_channels=\(32, 64, 96\): .* write lateral_channels=\(32, 64, 128\)'
    with pytest.raises(UserError, match=message):
        model.loss(*masked_batch())
    with pytest.raises(UserError, match=message):
        model.predict(*batch())


def test_an_image_without_masks_is_named():
    model = build(with_masks(tiny_config())).train()
    images, samples = masked_batch()
    del samples[1].gt_instances.masks
    samples[1].set_metainfo(dict(img_path='street.jpg'))
    with pytest.raises(UserError, match=r'street.jpg.*no masks.*with_mask=True'):
        model.loss(images, samples)


def paths():
    return [None, *[path for path in VARIANTS if path.stem in CHECKED]]


CHECKED = ('detr_r50_additive_8xb2-50e_coco', 'detr_r50_or-fl_8xb2-50e_coco', 'dab-detr_r50_8xb2-50e_coco')


@pytest.mark.parametrize('path', paths(), ids=lambda path: path.stem if path else 'conditional-detr')
def test_boxes_are_those_of_the_model_without_masks(path):
    """Conditional DETR, the additive DETR with softmax and with sigmoid, DAB-DETR: bit for bit, with masks beside."""
    config = tiny_config() if path is None else tiny_variant(path)
    plain = build(config)
    model = build(with_masks(config))
    missing = model.load_state_dict(plain.state_dict(), strict=False).missing_keys
    assert all(name.startswith('mask_head.') for name in missing)
    model.untrained_masks = ''
    images, samples = batch()
    with torch.no_grad():
        boxes = [sample.pred_instances for sample in plain.predict(images, batch()[1])]
        found = [sample.pred_instances for sample in model.predict(images, samples)]
    for without, result in zip(boxes, found):
        for name in ('bboxes', 'scores', 'labels'):
            assert torch.equal(without[name], result[name])
        assert 'masks' not in without and 'queries' not in without
        assert result.masks.dtype == torch.bool
    assert [tuple(result.masks.shape) for result in found] == [(20, 96, 128), (20, 70, 100)]
    assert 0 < torch.cat([result.masks.flatten() for result in found]).float().mean() < 1


def test_masks_of_kept_queries_are_those_of_all_and_have_the_original_size():
    config = tiny_config()
    config['test_cfg']['max_per_img'] = 6
    model = build(with_masks(config))
    images, samples = batch()
    for sample, scale in zip(samples, (0.5, 2.0)):
        height, width = sample.img_shape
        sample.set_metainfo(dict(ori_shape=(int(height / scale), int(width / scale)), scale_factor=(scale, scale)))
    with torch.no_grad():
        inputs = model.encode_with_maps(images, samples)
        hidden, _ = model.decode(images, samples)
        every = model.mask_head(inputs, list(hidden[-1]))
        found = [sample.pred_instances for sample in model.predict(images, samples)]
    for image, (result, sample) in enumerate(zip(found, samples)):
        logits = every[12 * image : 12 * image + 12]
        logits = F.interpolate(logits[None], size=(96, 128), mode='bilinear')[0]
        logits = logits[:, : sample.img_shape[0], : sample.img_shape[1]]
        logits = F.interpolate(logits[None], size=sample.ori_shape, mode='bilinear')[0]
        masks = logits[result.queries] > 0
        assert result.masks.shape == (6, *sample.ori_shape)
        assert (result.masks != masks).float().mean() < 1e-4


def test_a_detection_checkpoint_starts_a_model_with_masks_and_says_what_is_untrained():
    plain = build(tiny_config()).state_dict()
    model = build(with_masks(tiny_config()), seed=1)
    head = model.mask_head.predictor.weight.clone()
    tensors = OrderedDict(plain)
    tensors._metadata = OrderedDict({'': dict(mmcondetr=dict(where='boxes.pth'))})
    model.load_state_dict(tensors)
    assert torch.equal(model.mask_head.predictor.weight, head)
    assert torch.equal(model.bbox_head.class_embed.weight, plain['bbox_head.class_embed.weight'])
    images, samples = masked_batch()
    with pytest.raises(UserError, match=r'boxes.pth: the checkpoint has no mask head.* Masks would be random'):
        model.predict(images, samples)
    model.loss(images, samples)
    model.predict(images, samples)


def test_a_model_without_masks_has_no_tensor_of_them():
    assert not [name for name in build(tiny_config()).state_dict() if 'mask' in name]


def test_as_many_queries_in_every_image_may_come_as_one_tensor():
    head, inputs = head_and_inputs()
    queries = torch.randn(2, 5, 32)
    masks = head.of_batch(inputs, queries)
    assert masks.shape == (2, 5, 16, 24)
    assert torch.allclose(masks.flatten(0, 1), head(inputs, list(queries)), atol=1e-5)
    assert (masks[0] - masks[1]).abs().mean() > 0.01


@pytest.mark.parametrize('dtype', [None, torch.bfloat16])
def test_an_optimised_detector_has_masks(dtype):
    model = build(with_masks(tiny_config()))
    with torch.no_grad():
        expected = [sample.pred_instances for sample in model.predict(*batch())]
        optimize_for_inference(model, dtype)
        found = [sample.pred_instances for sample in model(*batch(), mode='predict')]
    assert all(result.masks.shape == plain.masks.shape for result, plain in zip(found, expected))
    if dtype is None:
        same = torch.cat([(result.masks == plain.masks).flatten() for result, plain in zip(found, expected)])
        assert same.float().mean() > 0.999
