"""Masks against DETR's code (golden outputs) and Hugging Face's (run live), from checkpoints under their names."""

from __future__ import annotations

from collections import OrderedDict

import detr_weights
import measure
import numpy as np
import pytest
import torch
import weights
from measure import GOLDEN, ROOT, SPREAD, TOLERANCE
from mmdet.structures.mask import BitmapMasks
from mmengine.config import Config
from mmengine.runner import load_checkpoint
from safetensors.torch import save_file

from mmcondetr.checkpoints import classes

EVERY_CLASS, EVERY_MASK = slice(None, None, 4), slice(None, None, 20)  # as make_detr_masks_golden.py keeps them
OBJECTS = (7, 4)
WEIGHTS = np.array([1, 5, 2, 1, 1])  # of DETR's class, L1, GIoU, focal and dice terms


def model_of(config: str, num_classes: int = 133):
    model = Config.fromfile(ROOT / f'configs/masks/{config}.py').model
    model.backbone.init_cfg = None
    model.bbox_head.num_classes = num_classes
    if model.mask_head.get('panoptic'):
        model.mask_head.panoptic.update(num_classes=num_classes, num_things=min(80, num_classes))
    if 'SoftmaxDETRHead' in model.bbox_head.type:
        model.bbox_head.loss_cls.class_weight = [1.0] * num_classes + [0.1]
    return measure.build(model)


def detr(num_classes: int = 133):
    return model_of('detr_r50_panoptic-frozen_8xb2-25e_coco-panoptic', num_classes)


@pytest.fixture(scope='module')
def tensors() -> dict[str, torch.Tensor]:
    return {name: torch.from_numpy(value) for name, value in detr_weights.state_dict().items()}


@pytest.fixture(scope='module')
def theirs(tensors):
    """DETR with all 250 rows of its class head."""
    model = detr(250)
    model.load_state_dict(OrderedDict(tensors))
    return model


def samples():
    targets = weights.targets('masks', detr_weights.NUM_OUTPUTS - 1, OBJECTS)
    result = measure.samples(targets)
    for sample, target in zip(result, targets):
        masks = detr_weights.masks(target['boxes'], sample.img_shape)
        sample.gt_instances.masks = BitmapMasks(masks.astype(np.uint8), *sample.img_shape)
    return result


@torch.no_grad()
def outputs(model, data):
    """Class logits (B, N, classes), boxes (B, N, 4) and mask logits (B, n, h, w) of every twentieth query."""
    pixels = measure.images()[0].to(model.query_embedding.weight.dtype)
    inputs = model.encode_with_maps(pixels, data)
    hidden, references = model.decoder(model.query_embedding.weight[None], inputs.memory)
    logits, boxes = model.bbox_head(hidden[-1:], references[-1:])
    return logits[0], boxes[0], model.mask_head.of_batch(inputs, hidden[-1][:, EVERY_MASK])


def test_detrs_checkpoint_gives_its_outputs(theirs):
    golden = np.load(GOLDEN / 'detr_masks.npz')
    logits, boxes, masks = outputs(theirs, samples())
    assert logits.std(dim=1).mean() > SPREAD
    assert masks.std(dim=1).mean() > SPREAD
    assert measure.apart(logits[:, EVERY_CLASS], golden['logits']) < TOLERANCE
    assert measure.apart(boxes, golden['boxes']) < TOLERANCE
    assert measure.apart(masks, golden['masks']) < TOLERANCE


def test_matches_and_losses_are_detrs(theirs):
    """Their criterion's class, box and mask terms: the detector's come from its head, the masks' from the mask head."""
    golden = np.load(GOLDEN / 'detr_masks.npz')
    data = samples()
    found = theirs.loss(measure.images()[0], data)  # a frozen detector loses by its masks alone
    assert set(found) == {'loss_mask', 'loss_dice'}
    with torch.no_grad():
        hidden, references = theirs.decode(measure.images()[0], data)
        found.update(theirs.bbox_head.loss(hidden[-1:], references[-1:], data))
        matches = theirs.bbox_head.match(hidden[-1:], references[-1:], data)
    assert matches.query.tolist() == golden['queries'].tolist()
    terms = [found[name].item() for name in ('loss_cls', 'loss_bbox', 'loss_iou', 'loss_mask', 'loss_dice')]
    assert measure.apart(torch.tensor(terms), golden['terms'] * WEIGHTS) < TOLERANCE


def test_rows_are_found_by_category_id(tensors):
    """A model of COCO's 133 panoptic classes takes those rows of DETR's 251, and its last one."""
    model = detr()
    model.load_state_dict(OrderedDict(tensors))
    weight = model.bbox_head.class_embed.weight
    for row, number in ((0, 1), (79, 90), (80, 92), (132, 200), (133, 250)):
        assert torch.equal(weight[row], tensors['detr.class_embed.weight'][number])
    assert classes.DETR_PANOPTIC[200] == classes.COCO_PANOPTIC[132] == 'rug-merged'


@pytest.fixture(scope='module', params=['Detr', 'ConditionalDetr'])
def huggingface(request, tmp_path_factory):
    """A small model of transformers with random weights that are not alike, its folder, and its outputs."""
    transformers = pytest.importorskip('transformers')
    kind, folder = request.param, tmp_path_factory.mktemp(request.param)
    backbone = transformers.ResNetConfig(
        embedding_size=64,
        hidden_sizes=[256, 512, 1024, 2048],
        depths=[1, 1, 1, 1],
        layer_type='bottleneck',
        out_features=['stage1', 'stage2', 'stage3', 'stage4'],
    )
    config = getattr(transformers, f'{kind}Config')(
        use_timm_backbone=False,
        backbone=None,
        use_pretrained_backbone=False,
        backbone_config=backbone,
        num_queries=60,
        encoder_layers=1,
        decoder_layers=2,
        encoder_ffn_dim=64,
        decoder_ffn_dim=64,
        num_labels=6,
    )
    model = getattr(transformers, f'{kind}ForSegmentation')(config).eval()
    model.config.id2label = {0: 'N/A', 1: 'cat', 2: 'dog', 3: 'sky', 4: 'sand', 5: 'N/A'}
    with torch.no_grad():
        for name, value in model.state_dict().items():
            if value.is_floating_point():
                value.copy_(torch.from_numpy(_value(name, tuple(value.shape), kind)))
    model.save_pretrained(folder)
    pixels, mask = measure.images()
    with torch.no_grad():  # in float64: what is loud enough for masks to differ by query is loud for rounding, too
        outputs = model.double()(pixel_values=pixels.double(), pixel_mask=(~mask).long())
    return kind, folder, model.float(), outputs


def _value(name: str, shape: tuple[int, ...], kind: str) -> np.ndarray:
    """By the rule of weights.py; attention, and the mask head's view of it, have large values."""
    value = weights.tensor(name, shape)
    if name == 'mask_head.conv1.conv.weight':
        value[:, : detr_weights.DIMS] *= np.float32(0.2)
        value[:, detr_weights.DIMS :] *= np.float32(100.0)
    gains = {
        'bbox_attention.q_proj': 3.0 if kind == 'Detr' else 12.0,
        'fpn_adapter.weight': 0.05,
        'labels_classifier.weight': 2.0,
        'input_projection.weight': 0.25,
        **dict.fromkeys(('q_proj', 'k_proj', 'v_proj', 'query_pos'), 2.0),
        **dict.fromkeys(('q_content', 'k_content', 'q_pos', 'k_pos'), 4.0),
    }
    gain = next((gain for part, gain in gains.items() if part in name), 1.0)
    return value * np.float32(gain)


def ours_like(kind: str):
    """Our model of the same size, with the four classes that have a name."""
    name = 'detr_r50_panoptic-frozen_8xb2-25e_coco-panoptic' if kind == 'Detr' else CONDITIONAL
    model = Config.fromfile(ROOT / f'configs/masks/{name}.py').model
    model.backbone.init_cfg, model.backbone.depth = None, 50
    model.num_queries = 60
    model.encoder.num_layers, model.decoder.num_layers = 1, 2
    model.encoder.layer.feedforward_channels = model.decoder.layer.feedforward_channels = 64
    model.bbox_head.num_classes = 6
    if kind == 'Detr':
        model.bbox_head.loss_cls.class_weight = [1.0] * 6 + [0.1]
        model.mask_head.panoptic.update(num_classes=6, num_things=6)
    result = measure.build(model)
    for stage in range(1, 5):
        layer = getattr(result.backbone, f'layer{stage}')
        del layer[1:]
    return result


CONDITIONAL = 'conditional-detr_r50_masks-frozen_8xb2-25e_coco'


@pytest.mark.parametrize('saved', ['disk', 'memory'])
def test_huggingfaces_masks(huggingface, tmp_path, saved):
    """Its files load, and outputs are equal; but Conditional DETR's boxes, which lack the reference point there."""
    kind, folder, model, expected = huggingface
    ours = ours_like(kind)
    path = folder
    if saved == 'memory':
        path = tmp_path / 'model.safetensors'
        save_file({name: value.contiguous() for name, value in model.state_dict().items()}, path)
    load_checkpoint(ours, str(path), map_location='cpu')
    logits, boxes, masks = outputs(ours.double(), measure.model_samples(6))
    assert logits.std(dim=1).mean() > SPREAD
    assert masks.std(dim=1).mean() > SPREAD
    assert measure.apart(logits, expected.logits) < TOLERANCE
    assert measure.apart(masks, expected.pred_masks[:, EVERY_MASK]) < TOLERANCE
    if kind == 'Detr':
        assert measure.apart(boxes, expected.pred_boxes) < TOLERANCE
        return
    assert measure.apart(boxes, expected.pred_boxes) > 0.1
    with torch.no_grad():
        hidden, _ = ours.decode(measure.images()[0].double(), measure.model_samples(6))
        without = ours.bbox_head.box_embed(hidden[-1]).sigmoid()  # as they have it: no reference point
    assert measure.apart(without, expected.pred_boxes) < TOLERANCE
