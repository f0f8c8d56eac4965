"""DN-DETR's denoising against its authors' code in training mode, with their noise: outputs, losses, gradients."""

import measure
import numpy as np
import pytest
import torch
import weights
from dab_weights import denoising_shapes, tensor
from measure import GOLDEN, ROOT, SPREAD, TOLERANCE
from mmengine.config import Config

from mmcondetr.checkpoints.label_embeddings import LABELS, UNKNOWN
from mmcondetr.checkpoints.renaming import from_ours
from mmcondetr.checkpoints.rules import FAMILIES
from mmcondetr.models.training import denoising

NUM_QUERIES, NUM_GROUPS = 60, 3  # of the golden outputs
OBJECTS = {'even': (5, 5), 'uneven': (7, 4), 'none': (0, 0)}


@pytest.fixture(scope='module')
def model():
    config = Config.fromfile(ROOT / 'configs/dn_dab_detr/dn-dab-detr_r50_8xb2-50e_coco.py').model
    config.backbone.init_cfg = None
    config.num_queries, config.bbox_head.num_classes, config.training_queries.num_groups = NUM_QUERIES, 91, NUM_GROUPS
    result = measure.build(config).train()
    result.load_state_dict(
        {name: torch.from_numpy(tensor(name, shape)) for name, shape in denoising_shapes(NUM_QUERIES).items()}
    )
    return result


def spread_out(values: np.ndarray, counts, slots: int) -> torch.Tensor:
    """What was drawn for each object, group by group and in a group image by image -> (B P, T, ...)."""
    drawn = torch.from_numpy(values).float().unflatten(0, (NUM_GROUPS, -1)).split(list(counts), dim=1)  # B x (P, G, ..)
    result = torch.zeros(len(counts), NUM_GROUPS, slots, *values.shape[1:])
    for image, own in enumerate(drawn):
        result[image, :, : counts[image]] = own
    return result.flatten(0, 1)


def give(monkeypatch, golden, counts, suffix: str = '') -> None:
    """The authors' noise in place of torch's."""
    slots = max(counts)
    flips = golden[f'noise.flip{suffix}'] < 0.2
    label = np.zeros(len(flips))
    label[flips] = golden[f'noise.label{suffix}']
    boxes, flip, label = (
        spread_out(values, counts, slots)
        for values in (golden[f'noise.boxes{suffix}'], golden[f'noise.flip{suffix}'], label)
    )
    monkeypatch.setattr(torch, 'rand_like', lambda like, **_: boxes if like.dim() == 3 else flip)
    monkeypatch.setattr(torch, 'randint_like', lambda *_: label.long())


def run(model, samples):
    queries = model.training_queries(model.query_embedding.weight[None], samples)
    return model.bbox_head(*model.decode(measure.images()[0], samples, queries))


def terms(losses, noised: bool) -> torch.Tensor:
    own = {name: value for name, value in losses.items() if ('denoising_' in name) == noised}
    return measure.terms({name.replace('denoising_', ''): value for name, value in own.items()})


@pytest.mark.parametrize('case', OBJECTS)
def test_matching_outputs_and_losses_are_the_authors(case, model, monkeypatch):
    golden, counts = np.load(GOLDEN / f'dn_authors_{case}.npz'), OBJECTS[case]
    samples = measure.samples(weights.targets(case, 91, counts))
    give(monkeypatch, golden, counts)
    with torch.no_grad():
        logits, boxes = run(model, samples)
        losses = model.loss(measure.images()[0], samples)
    assert measure.spread(logits[-1, :, :NUM_QUERIES]) > SPREAD
    assert measure.apart(logits[:, :, :NUM_QUERIES:10], golden['logits']) < TOLERANCE
    assert measure.apart(logits[-1, :, :NUM_QUERIES:3], golden['last_logits']) < TOLERANCE
    assert measure.apart(boxes[:, :, :NUM_QUERIES], golden['boxes']) < TOLERANCE
    assert measure.apart(terms(losses, False), golden['terms']) < TOLERANCE
    if case == 'even':  # otherwise an object's query sees empty slots in their code
        assert measure.apart(logits[:, :, NUM_QUERIES:], golden['noised_logits']) < TOLERANCE
        assert measure.apart(boxes[:, :, NUM_QUERIES:], golden['noised_boxes']) < TOLERANCE
    if case != 'uneven':
        assert measure.apart(terms(losses, True), golden['noised_terms']) < TOLERANCE


def test_beside_an_image_with_more_objects_queries_are_the_authors_for_the_image_alone(model, monkeypatch):
    golden, counts = np.load(GOLDEN / 'dn_authors_uneven.npz'), OBJECTS['uneven']
    samples = measure.samples(weights.targets('uneven', 91, counts))
    drawn = {}
    for name in ('boxes', 'flip'):
        drawn[f'noise.{name}'] = np.concatenate(
            [golden[f'noise.{name}.{image}'].reshape(NUM_GROUPS, count, -1) for image, count in enumerate(counts)], 1
        )
    boxes, flip = drawn['noise.boxes'].reshape(-1, 4), drawn['noise.flip'].ravel()
    label = []
    for image, count in enumerate(counts):
        own = np.full(NUM_GROUPS * count, -1)
        own[golden[f'noise.flip.{image}'] < 0.2] = golden[f'noise.label.{image}']
        label.append(own.reshape(NUM_GROUPS, count))
    label = np.concatenate(label, 1).ravel()
    give(monkeypatch, {'noise.boxes': boxes, 'noise.flip': flip, 'noise.label': label[label >= 0]}, counts)
    with torch.no_grad():
        logits, found = (each[:, :, NUM_QUERIES:].unflatten(2, (NUM_GROUPS, -1)) for each in run(model, samples))
    for image, count in enumerate(counts):
        here = logits[:, image, :, :count].flatten(1, 2), found[:, image, :, :count].flatten(1, 2)
        assert measure.apart(here[0], golden[f'noised_logits.{image}']) < TOLERANCE
        assert measure.apart(here[1], golden[f'noised_boxes.{image}']) < TOLERANCE


def test_every_gradient_is_the_authors(model, monkeypatch):
    golden, counts = np.load(GOLDEN / 'dn_authors_even.npz'), OBJECTS['even']
    give(monkeypatch, golden, counts)
    model.zero_grad()
    sum(model.loss(measure.images()[0], measure.samples(weights.targets('even', 91, counts))).values()).backward()
    gradients = {name: value.grad for name, value in model.named_parameters() if value.grad is not None}
    labels = torch.cat([gradients.pop(LABELS), gradients.pop(UNKNOWN)])
    gradients = from_ours(gradients, FAMILIES['dab-authors'], 'gradients')
    gradients['label_enc.weight'] = labels
    # The box MLP has two names in their code, and goes by the other.
    gradients = {name.replace('bbox_embed.', 'transformer.decoder.bbox_embed.'): x for name, x in gradients.items()}
    assert {f'gradient.{name}' for name in gradients} == {key for key in golden if key.startswith('gradient.')}
    for name, gradient in gradients.items():
        given, theirs = weights.digest(f'gradient.{name}', gradient.numpy()), golden[f'gradient.{name}']
        assert np.abs(given - theirs).max() <= 2e-2 * theirs[0] + 5e-4, (name, given, theirs)
    model.zero_grad()


def test_a_plain_evaluation_is_the_authors_content_of_unknown(model):
    memory = torch.zeros(1, 1, 256)
    wanted = torch.from_numpy(tensor('label_enc.weight', (92, 255)))
    assert torch.equal(model.decoder.reference_point.content(2, memory)[0, 1, :255], wanted[91])
    assert model.decoder.reference_point.content(2, memory)[..., 255].abs().max() == 0
    assert torch.equal(model.training_queries.label_embedding.weight, wanted[:91])


def test_boxes_are_noised_within_their_reach():
    torch.manual_seed(0)
    boxes = torch.tensor([[0.5, 0.5, 0.4, 0.2]]).repeat(2000, 1)
    noised = denoising.draw_boxes(boxes, 0.4)
    reach = torch.tensor([0.08, 0.04, 0.16, 0.08])
    assert ((noised - boxes).abs() <= reach + 1e-6).all()
    assert ((noised - boxes).abs().amax(0) > 0.99 * reach).all()
    labels = torch.full((20000,), 3)
    drawn = denoising.draw_labels(labels, 5, 0.2)
    assert (drawn != 3).float().mean() == pytest.approx(0.2 * 4 / 5, abs=0.01)
    assert drawn.unique().tolist() == [0, 1, 2, 3, 4]
