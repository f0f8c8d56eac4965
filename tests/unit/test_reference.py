"""Fixed reference points: predicted, learned, zero."""

import pytest
import torch

import mmcondetr  # noqa: F401
from mmcondetr.models.positional import sine_embed
from mmcondetr.registry import MODELS

D, N = 32, 6
KINDS = (
    dict(type='mmcondetr.ReferencePoint', embed_dims=D),
    dict(type='mmcondetr.LearnedReferencePoint', embed_dims=D, num_queries=N),
    dict(type='mmcondetr.ZeroReferencePoint', embed_dims=D),
)


@pytest.fixture(params=KINDS, ids=lambda kind: kind['type'].split('.')[1])
def reference_point(request):
    torch.manual_seed(0)
    return MODELS.build(dict(request.param))


@pytest.mark.parametrize('images', [1, 2])
def test_logits_of_a_point_per_query(reference_point, images):
    assert reference_point(torch.randn(images, N, D)).shape == (images, N, 2)


def test_start_gives_zero_content_and_the_embedded_point(reference_point):
    object_query, memory = torch.randn(1, N, D), torch.randn(2, 5, D)
    f, position = reference_point.start(object_query, memory)
    assert f.shape == (2, N, D) and not f.any()
    assert torch.equal(position.object_query, object_query)
    assert torch.equal(position.p_s, sine_embed(position.reference.sigmoid(), D))
    assert reference_point.move(position, torch.randn(2, N, D)) is position


def test_query_embedding_is_one_vector_per_query(reference_point):
    assert reference_point.query_embedding(N).weight.shape == (N, D)


def test_predicted_depends_on_the_query_and_on_nothing_else():
    point = MODELS.build(dict(KINDS[0]))
    query = torch.randn(1, N, D)
    assert torch.allclose(point(query)[:, :2], point(query[:, :2]), rtol=0, atol=1e-6)
    assert point(query)[0].std(dim=0).min() > 0


def test_learned_starts_all_over_the_image_and_is_trained():
    point = MODELS.build(dict(type='mmcondetr.LearnedReferencePoint', embed_dims=D, num_queries=300))
    places = point(torch.zeros(1, 300, D)).sigmoid()[0]
    counts = torch.histc(places[:, 0], 4, 0, 1)
    assert counts.min() > 40  # of 75 expected
    point(torch.zeros(2, 300, D)).sum().backward()
    assert (point.logits.grad == 2).all()


def test_learned_names_both_numbers_when_they_differ():
    with pytest.raises(ValueError, match='num_queries=6 does not fit 7 object queries'):
        MODELS.build(dict(KINDS[1]))(torch.zeros(1, 7, D))


def test_zero_is_the_centre_of_the_image():
    point = MODELS.build(dict(KINDS[2]))
    assert (point(torch.randn(2, N, D)).sigmoid() == 0.5).all()
    assert list(point.parameters()) == []
