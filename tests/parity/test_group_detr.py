"""Group DETR against its authors' code in training mode: outputs of all groups, losses and every gradient."""

from argparse import Namespace

import measure
import numpy as np
import torch
import weights
from measure import GOLDEN, SPREAD, TOLERANCE
from mmengine.runner import load_checkpoint

from mmcondetr.checkpoints.renaming import from_ours
from mmcondetr.checkpoints.rules import FAMILIES

NUM_QUERIES, NUM_GROUPS = 60, 3  # of the golden outputs
OBJECTS = 'query_embedding.weight'


def build(num_classes: int) -> torch.nn.Module:
    config = measure.config('r50')
    config.update(num_queries=NUM_QUERIES, training_queries=dict(type='mmcondetr.QueryGroups', num_groups=NUM_GROUPS))
    config.bbox_head.num_classes = num_classes
    for part in (config.encoder, config.decoder):
        part.layer.dropout = 0.0
    return measure.build(config)


def authors_tensors() -> dict:
    shapes = weights.authors_shapes(50, num_queries=NUM_QUERIES * NUM_GROUPS)
    return {name: torch.from_numpy(weights.tensor(name, shape)) for name, shape in shapes.items()}


def test_outputs_losses_and_gradients_of_all_groups_equal_the_authors():
    model = build(91).train()
    model.load_state_dict(authors_tensors())
    golden, samples = np.load(GOLDEN / 'authors_groups.npz'), measure.model_samples(91)
    queries = model.training_queries(model.query_embedding.weight[None], samples)
    hidden_states, references = model.decode(measure.images()[0], samples, queries)
    logits, boxes = model.bbox_head(hidden_states, references)
    assert measure.spread(logits[-1]) > SPREAD
    assert measure.apart(logits[:, :, ::10], golden['logits']) < TOLERANCE
    assert measure.apart(logits[-1, :, ::3], golden['last_logits']) < TOLERANCE
    assert measure.apart(boxes, golden['boxes']) < TOLERANCE

    losses = model.loss(measure.images()[0], samples)
    assert measure.apart(measure.terms(losses).double(), golden['terms']) < TOLERANCE


def test_losses_and_every_gradient_equal_the_authors_in_float64():
    """In float32 these weights say little of a gradient before the encoder's end: the authors' own are up to 4 % apart.

    What is left, some 4e-7, comes from the sine embeddings, which both compute in float32.
    """
    model = build(91).train()
    model.load_state_dict(authors_tensors())
    model.double()
    golden = np.load(GOLDEN / 'authors_groups.npz')
    targets = weights.targets('model', 91, measure.OBJECTS)
    targets = [dict(target, boxes=target['boxes'].astype(np.float64)) for target in targets]
    losses = model.loss(measure.images()[0].double(), measure.samples(targets))
    assert measure.apart(measure.terms(losses), golden['terms']) < 1e-6
    sum(losses.values()).backward()
    gradients = {name: value.grad for name, value in model.named_parameters() if value.grad is not None}
    groups = [name for name in gradients if name.startswith('training_queries.')]
    gradients[OBJECTS] = torch.cat([gradients[OBJECTS], *(gradients.pop(name) for name in groups)])
    gradients = from_ours(gradients, FAMILIES['authors'], 'gradients')
    assert {f'gradient.{name}' for name in gradients} == {key for key in golden if key.startswith('gradient.')}
    for name, gradient in gradients.items():
        given, wanted = weights.digest(f'gradient.{name}', gradient.numpy()), golden[f'gradient.{name}']
        assert wanted.dtype == given.dtype == np.float64
        # Absolute beside relative: the gradient of what softmax does not see is zero, but for rounding.
        np.testing.assert_allclose(given, wanted, rtol=0, atol=1e-5 * wanted[0] + 1e-12, err_msg=name)


def test_a_file_of_the_authors_branch_loads_as_groups_and_as_the_plain_model(tmp_path):
    path = tmp_path / 'ConditionalDETR_r50_epoch12.pth'
    args = Namespace(backbone='resnet50', dilation=False, group_detr=NUM_GROUPS)
    torch.save(dict(model=authors_tensors(), args=args), path)
    rows = authors_tensors()['query_embed.weight'].split(NUM_QUERIES)
    grouped = build(91)
    load_checkpoint(grouped, str(path), map_location='cpu')
    every = [grouped.query_embedding, *grouped.training_queries.others]
    assert all(torch.equal(group.weight, wanted) for group, wanted in zip(every, rows))
    plain = measure.config('r50')
    plain.num_queries = NUM_QUERIES
    plain = measure.build(plain)
    load_checkpoint(plain, str(path), map_location='cpu')
    assert torch.equal(plain.query_embedding.weight, rows[0])
