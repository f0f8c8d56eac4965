"""torch.compile takes the transformer in one piece: no graph breaks, with and without padding, in both modes."""

import pytest
import torch
from tiny_model import batch, build, tiny_config
from tiny_variants import ROOT, tiny_variant

from mmcondetr.models.detector import padding_mask


def count_graphs(function, *inputs):
    """How many graphs torch.compile cuts the function into, and its result run from them."""
    graphs = []

    def backend(graph, example_inputs):
        graphs.append(graph)
        return graph.forward

    torch._dynamo.reset()
    result = torch.compile(function, backend=backend)(*inputs)
    return len(graphs), result


@pytest.mark.parametrize('padded', [False, True], ids=['whole', 'padded'])
@pytest.mark.parametrize('training', [False, True], ids=['inference', 'training'])
def test_the_transformer_is_one_graph(training, padded):
    model = build(tiny_config()).train(training)
    images, samples = batch()
    padding = padding_mask(images, samples) if padded else None
    features = torch.randn(2, 32, 3, 4)
    graphs, (hidden_states, references) = count_graphs(model.forward_transformer, features, padding)
    assert graphs == 1
    assert hidden_states.shape == (3, 2, 12, 32) and references.shape == (3, 2, 12, 2)
    if not training:
        expected, _ = model.forward_transformer(features, padding)
        torch.testing.assert_close(hidden_states, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    'name',
    [
        'ablations/detr_r50_or-fl_8xb2-50e_coco',
        'dab_detr/dab-detr_r50_8xb2-50e_coco',
        'dab_detr/dab-detr_r50_3-patterns_8xb2-50e_coco',
        'with_cp',
    ],
)
def test_the_transformer_of_a_variant_is_one_graph(name):
    if name == 'with_cp':
        config = tiny_config()
        config['encoder']['with_cp'] = config['decoder']['with_cp'] = True
    else:
        config = tiny_variant(ROOT / f'configs/{name}.py')
    model = build(config).train()
    graphs, (hidden_states, _) = count_graphs(model.forward_transformer, torch.randn(2, 32, 3, 4), None)
    assert graphs == 1
    assert hidden_states.shape == (3, 2, 36 if '3-patterns' in name else 12, 32)


def test_backbone_and_neck_are_one_graph():
    config = tiny_config()
    config['backbone']['type'] = 'mmcondetr.ResNet'
    model = build(config)
    images, _ = batch()
    with torch.no_grad():
        graphs, features = count_graphs(model.extract_feat, images)
        expected = model.extract_feat(images)
    assert graphs == 1
    torch.testing.assert_close(features, expected, rtol=1e-5, atol=1e-5 * expected.abs().max().item())
