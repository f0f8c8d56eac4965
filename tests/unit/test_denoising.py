"""DN-DETR's denoising: matching queries are unaffected, empty slots are inert, and inference does not use it."""

from __future__ import annotations

import pytest
import torch
from mmengine.runner import load_checkpoint
from tiny_model import batch, build
from tiny_variants import ROOT, tiny_variant

from mmcondetr.checkpoints.adapting import fit
from mmcondetr.checkpoints.classes import COCO_IDS
from mmcondetr.checkpoints.conversion import convert
from mmcondetr.checkpoints.label_embeddings import LABELS, UNKNOWN
from mmcondetr.checkpoints.renaming import from_ours
from mmcondetr.checkpoints.rules import FAMILIES
from mmcondetr.errors import UserError
from mmcondetr.inference.optimize import optimize_for_inference
from mmcondetr.models.training.denoising import in_slots
from mmcondetr.models.training.denoising_anchors import DenoisingQueries
from mmcondetr.models.training.denoising_points import DenoisingPoints

P = 2
CONFIG = ROOT / 'configs/dn_dab_detr/dn-dab-detr_r50_8xb2-50e_coco.py'
PLAIN = ROOT / 'configs/dab_detr/dab-detr_r50_8xb2-50e_coco.py'
POINTS = ROOT / 'configs/conditional_detr/conditional-detr_r50_8xb2-50e_coco.py'
KINDS = pytest.mark.parametrize('kind', ['DenoisingQueries', 'DenoisingPoints'])
GROUPS = dict(type='mmcondetr.QueryGroups', num_groups=3)


def denoising(
    matching: dict | None = None, seed: int = 0, num_classes: int = 5, kind: str = 'DenoisingQueries'
) -> torch.nn.Module:
    config = tiny_variant(CONFIG if kind == 'DenoisingQueries' else POINTS)
    config['bbox_head']['num_classes'] = num_classes
    config['training_queries'] = dict(type=f'mmcondetr.{kind}', num_groups=P, matching=matching)
    return build(config, seed=seed).train()


def objects(samples) -> list[int]:
    return [len(sample.gt_instances) for sample in samples]


def decode(model, inputs, samples):
    """Hidden states, references, and the queries that they are of."""
    torch.manual_seed(7)
    queries = model.training_queries(model.query_embedding.weight[None], samples)
    return *model.decode(inputs, samples, queries), queries


@KINDS
@pytest.mark.parametrize('matching', [None, GROUPS], ids=['plain', 'groups'])
def test_matching_queries_have_no_gradient_by_denoising_ones_and_are_as_without_them(matching, kind):
    model, (inputs, samples) = denoising(matching, kind=kind), batch()
    assert len(set(objects(samples))) > 1  # so that one image has empty slots
    queries = model.training_queries(model.query_embedding.weight[None], samples)
    count = model.query_embedding.num_embeddings * (3 if matching else 1)
    assert queries.object_query.shape[1] == count + P * max(objects(samples))
    noised, content = queries.object_query.detach().requires_grad_(), queries.content.detach().requires_grad_()
    asked = queries._replace(object_query=noised, content=content)
    hidden_states, references = model.decode(inputs, samples, asked)
    total = hidden_states[:, :, :count].square().sum() + references[:, :, :count].square().sum()
    for gradient in torch.autograd.grad(total, (noised, content), retain_graph=True):
        assert gradient[:, count:].abs().max() == 0 and gradient[:, :count].abs().max() > 0
    # Denoising queries see the first group, and no other.
    seen = torch.autograd.grad(hidden_states[:, :, count:].square().sum(), content)[0]
    first = model.query_embedding.num_embeddings
    assert seen[:, :first].abs().max() > 0 and not seen[:, first:count].any()

    alone = model.training_queries.matching(model.query_embedding.weight[None], samples)
    wanted, wanted_references = model.decode(inputs, samples, alone)
    assert torch.allclose(hidden_states[:, :, :count], wanted, atol=1e-5)
    assert torch.allclose(references[:, :, :count], wanted_references, atol=1e-5)


@KINDS
def test_a_group_does_not_see_another_and_an_empty_slot_is_seen_by_nobody(kind):
    model, (inputs, samples) = denoising(kind=kind), batch()
    hidden_states, _, queries = decode(model, inputs, samples)
    first, slots = model.query_embedding.num_embeddings, max(objects(samples))
    content = queries.content.detach().requires_grad_()
    hidden_states, _ = model.decode(inputs, samples, queries._replace(content=content))
    for image, count in enumerate(objects(samples)):
        for group in range(P):
            start = first + group * slots
            own = hidden_states[:, image, start : start + count].square().sum()
            if count == 0:
                continue
            gradient = torch.autograd.grad(own, content, retain_graph=True)[0]
            others = [start_ for g in range(P) if g != group for start_ in [first + g * slots]]
            assert gradient[image, start : start + count].any()
            assert not gradient[image, start + count : start + slots].any()
            assert not any(gradient[image, other : other + slots].any() for other in others)


@KINDS
def test_empty_slots_change_no_loss(kind):
    model, (inputs, samples) = denoising(kind=kind), batch()
    few, many = sorted(samples, key=lambda sample: len(sample.gt_instances))
    few.set_metainfo(dict(img_shape=many.img_shape))  # one size, so that nothing is padded
    torch.manual_seed(3)
    empty = ~in_slots(objects([few, many]), inputs.device)
    assert empty[0].sum() == len(many.gt_instances) - len(few.gt_instances) > 0 and not empty[1].any()
    head, hidden = model.bbox_head, {}
    original = head.losses

    def spy(logits, boxes, samples, num_boxes, matches=None):
        if matches is not None:
            hidden.update(logits=logits, boxes=boxes, matches=matches, num_boxes=num_boxes)
        return original(logits, boxes, samples, num_boxes, matches)

    head.losses = spy
    losses = model.loss(inputs, [few, many])
    slots = len(many.gt_instances)
    assert hidden['num_boxes'] == P * sum(objects([few, many]))
    absent = empty[0].repeat(P)
    logits = hidden['logits']
    one_hot = torch.zeros_like(logits)
    for image, sample in enumerate((few, many)):
        for group in range(P):
            for target, label in enumerate(sample.gt_instances.labels):
                one_hot[:, image, group * slots + target, label] = 1
    p = logits.sigmoid()
    focal = torch.where(one_hot > 0, -0.25 * (1 - p) ** 2 * p.log(), -0.75 * p**2 * (1 - p).clamp(min=1e-9).log())
    assert focal[:, 0, absent].abs().max() == 0
    weight = {'DenoisingQueries': 1, 'DenoisingPoints': 2}[kind]  # DAB-DETR's and Conditional DETR's
    wanted = weight * focal.sum(dim=(1, 2, 3)) / hidden['num_boxes']
    given = torch.stack([*(losses[f'd{i}.denoising_loss_cls'] for i in range(2)), losses['denoising_loss_cls']])
    assert torch.allclose(given, wanted, rtol=1e-4)
    assert (hidden['matches'].query[hidden['matches'].image == 0] % slots < len(few.gt_instances)).all()


@KINDS
def test_a_batch_without_an_object_trains_what_it_can(kind):
    model, (inputs, samples) = denoising(kind=kind), batch()
    for sample in samples:
        sample.gt_instances = sample.gt_instances[:0]
    losses = model.loss(inputs, samples)
    assert all(value == 0 for name, value in losses.items() if 'denoising' in name or 'bbox' in name)
    sum(losses.values()).backward()
    gradients = {name: value.grad for name, value in model.named_parameters()}
    assert [name for name, gradient in gradients.items() if gradient is None] == []  # as DistributedDataParallel wants
    assert not gradients[LABELS].any()
    if kind == 'DenoisingQueries':
        assert gradients[UNKNOWN].any()


@KINDS
@pytest.mark.parametrize('matching', [None, GROUPS], ids=['plain', 'groups'])
def test_losses_with_activation_checkpointing_and_in_bfloat16(matching, kind):
    model, (inputs, samples) = denoising(matching, kind=kind), batch()
    results = []
    for model.decoder.with_cp in (False, True):
        torch.manual_seed(1)
        model.zero_grad()
        sum(model.loss(inputs, samples).values()).backward()
        results.append({name: value.grad.clone() for name, value in model.named_parameters()})
    assert all(torch.allclose(results[1][name], value, rtol=1e-4, atol=1e-6) for name, value in results[0].items())
    with torch.autocast('cpu', torch.bfloat16):
        terms = model.loss(inputs, samples)
    sum(terms.values()).backward()
    assert all(value.grad.isfinite().all() for value in model.parameters())


@KINDS
def test_evaluation_asks_without_them_and_the_optimised_model_drops_them(kind):
    model, (inputs, samples) = denoising(kind=kind).eval(), batch()
    with torch.no_grad():
        hidden_states, _ = model.decode(inputs, samples)
        assert hidden_states.shape[2] == model.query_embedding.num_embeddings
        before = model(inputs, samples, mode='tensor')
        fast = optimize_for_inference(model)
        assert not any(name.startswith('training_queries') for name in fast.state_dict())
        assert all(torch.allclose(x, y, atol=1e-4) for x, y in zip(before, fast(inputs, samples, mode='tensor')))


@KINDS
@pytest.mark.parametrize('matching', [None, GROUPS], ids=['plain', 'groups'])
def test_a_plain_model_loads_and_is_itself(matching, kind):
    plain = build(tiny_variant(PLAIN if kind == 'DenoisingQueries' else POINTS), seed=3).eval()
    model, (inputs, samples) = denoising(matching, kind=kind).eval(), batch()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    fitted = fit(model, plain.state_dict(), {})
    model.load_state_dict(fitted)
    with torch.no_grad():
        wanted, given = (each(inputs, samples, mode='tensor') for each in (plain, model))
    assert all(torch.equal(x, y) for x, y in zip(wanted, given))
    assert torch.equal(fitted[LABELS], before[LABELS])  # as initialised
    added = sorted(set(fitted) - set(plain.state_dict()) - {LABELS, UNKNOWN})
    others = [name for name in added if '.others.' in name]
    assert len(others) == (2 if matching else 0)
    assert all(not torch.equal(fitted[name], plain.query_embedding.weight) for name in others)
    assert all(torch.equal(fitted[name], before[name]) for name in added if name not in others)


@KINDS
def test_groups_load_as_the_matching_queries_of_denoising_and_back(kind):
    config = tiny_variant(CONFIG if kind == 'DenoisingQueries' else POINTS)
    grouped = build(dict(config, training_queries=GROUPS), seed=4)
    model = denoising(GROUPS, kind=kind)
    given, name = grouped.state_dict(), 'others.1.weight'
    fitted = fit(model, given, {})
    assert torch.equal(fitted[f'training_queries.matching.{name}'], given[f'training_queries.{name}'])
    assert set(fitted) == set(model.state_dict())
    again = fit(grouped, fitted, {})
    assert set(again) == set(given) and torch.equal(
        again[f'training_queries.{name}'], given[f'training_queries.{name}']
    )


def test_points_load_into_a_plain_model_and_into_their_own():
    model, plain = denoising(kind='DenoisingPoints', seed=2), build(tiny_variant(POINTS))
    given = model.state_dict()
    own = fit(denoising(kind='DenoisingPoints'), given, {})
    assert set(own) == set(given) and all(torch.equal(own[name], value) for name, value in given.items())
    assert set(fit(plain, given, {})) == set(plain.state_dict())


def test_a_converted_file_of_points_is_the_plain_models(tmp_path):
    model, plain = denoising(kind='DenoisingPoints'), build(tiny_variant(POINTS))
    torch.save(dict(state_dict=model.state_dict()), tmp_path / 'trained.pth')
    convert(tmp_path / 'trained.pth', tmp_path / 'converted.pth', 'mmcondetr')
    tensors = torch.load(tmp_path / 'converted.pth', weights_only=False)['state_dict']
    assert set(tensors) == set(plain.state_dict()) < set(model.state_dict())


def test_a_converted_file_holds_what_inference_needs_and_loads_for_further_training(tmp_path):
    model = denoising()
    torch.save(dict(state_dict=model.state_dict()), tmp_path / 'trained.pth')
    convert(tmp_path / 'trained.pth', tmp_path / 'converted.pth', 'mmcondetr')
    tensors = torch.load(tmp_path / 'converted.pth', weights_only=False)['state_dict']
    assert torch.equal(tensors[UNKNOWN], model.decoder.reference_point.unknown.weight)
    assert set(model.state_dict()) - set(tensors) == {LABELS}
    again = denoising(seed=5)
    before = again.training_queries.label_embedding.weight.clone()
    load_checkpoint(again, str(tmp_path / 'converted.pth'), map_location='cpu')
    assert torch.equal(again.decoder.reference_point.unknown.weight, tensors[UNKNOWN])
    assert torch.equal(again.training_queries.label_embedding.weight, before)


def test_the_authors_rows_of_91_classes_are_those_of_80_by_category_id():
    given, model = denoising(num_classes=91, seed=1), denoising(num_classes=80)
    tensors = dict(given.state_dict())
    every = torch.cat([tensors.pop(LABELS), tensors.pop(UNKNOWN)])
    tensors = from_ours(tensors, FAMILIES['dab-authors'], 'made here')
    tensors['label_enc.weight'] = every  # all in one, 'unknown' last
    model.load_state_dict(fit(model, tensors, {}))
    assert torch.equal(model.training_queries.label_embedding.weight, every[list(COCO_IDS)])
    assert torch.equal(model.decoder.reference_point.unknown.weight, every[-1:])


def test_the_noised_centre_is_the_reference_point_of_every_layer():
    model, (inputs, samples) = denoising(kind='DenoisingPoints'), batch()
    model.training_queries.box_noise = 0.0
    _, references, queries = decode(model, inputs, samples)
    first = model.query_embedding.num_embeddings
    for image, sample in enumerate(samples):
        height, width = sample.img_shape
        boxes = sample.gt_instances.bboxes
        centres = (boxes[:, :2] + boxes[:, 2:]) / 2 / boxes.new_tensor([width, height])
        for group in range(P):
            start = first + group * max(objects(samples))
            given = references[:, image, start : start + len(centres)].sigmoid()
            assert torch.allclose(given, centres.expand_as(given), atol=1e-5)
    plain = model.decoder.reference_point(queries.object_query[:, :first])
    assert torch.allclose(references[:, :, :first], plain.expand_as(references[:, :, :first]))


def test_what_does_not_fit_is_refused():
    with pytest.raises(
        UserError, match=r'training_queries: DenoisingPoints needs .* mmcondetr.ReferencePoint, not Anchor'
    ):
        build(dict(tiny_variant(PLAIN), training_queries=dict(type='mmcondetr.DenoisingPoints')))
    with pytest.raises(ValueError, match='num_groups must be a whole number, 1 or more'):
        DenoisingQueries(num_groups=0)
    for wrong in (1.5, 'abc', None):
        with pytest.raises(ValueError, match='box_noise must be a number from 0 to 1, got'):
            DenoisingQueries(box_noise=wrong)
    with pytest.raises(UserError, match=r'queries.matching: the matching queries of DenoisingPoints cannot be denois'):
        DenoisingPoints(matching=dict(type='mmcondetr.DenoisingQueries'))
    with pytest.raises(UserError, match='reference_point of type mmcondetr.LabelledAnchorBoxes, not AnchorBoxes'):
        build(dict(tiny_variant(PLAIN), training_queries=dict(type='mmcondetr.DenoisingQueries')))
