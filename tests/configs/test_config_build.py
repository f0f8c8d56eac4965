"""Every config builds, with every part from the right module: a bare type would build mmdet's own class."""

import pytest

from tools.model_zoo.complexity import build_on_meta


def module_of(part) -> str:
    return type(part).__module__


@pytest.fixture
def built(leaf, load_config):
    config = load_config(leaf)
    return config, build_on_meta(config)


def test_parts_come_from_the_modules_they_should(built):
    config, model = built
    small = config.model.backbone.depth == 18
    places = {
        module_of(model): 'mmcondetr.models.detector',
        module_of(model.backbone): 'mmcondetr.models.backbone',
        # The small models keep mmdet's, so that their runs compare with earlier ones.
        module_of(model.neck): 'mmdet.models.necks.channel_mapper' if small else 'mmcondetr.models.backbone',
        module_of(model.encoder): 'mmcondetr.models.encoder',
        module_of(model.decoder): 'mmcondetr.models.decoder',
        module_of(model.decoder.reference_point): 'mmcondetr.models.reference',
        module_of(model.decoder.spatial_query): 'mmcondetr.models.spatial_query',
        module_of(model.bbox_head): 'mmcondetr.models.head',
        module_of(model.bbox_head.matcher): 'mmcondetr.models.matching',
    }
    assert list(places) == list(places.values())
    for layer in model.encoder.layers:
        assert module_of(layer) == 'mmcondetr.models.encoder'
        assert module_of(layer.self_attn) == 'mmcondetr.models.encoder'
    for layer in model.decoder.layers:
        assert module_of(layer) == 'mmcondetr.models.decoder'
        assert {module_of(layer.self_attn), module_of(layer.cross_attn)} == {'mmcondetr.models.attention'}


def test_sizes_are_the_configs(built):
    config, model = built
    assert len(model.encoder.layers) == config.model.encoder.num_layers
    assert len(model.decoder.layers) == config.model.decoder.num_layers
    assert model.query_embedding.num_embeddings == config.model.num_queries
    assert model.bbox_head.class_embed.out_features == config.model.bbox_head.num_classes
    assert model.decoder.layers[0].dropout.p == config.model.decoder.layer.dropout


def test_only_dc5_dilates_the_last_stage_and_not_its_first_block(built):
    config, model = built
    last = getattr(model.backbone, model.backbone.res_layers[-1])
    dc5 = config.model.backbone.type == 'mmcondetr.ResNetDC5'
    assert [block.conv2.dilation for block in last] == [(1, 1)] + [(2, 2) if dc5 else (1, 1)] * (len(last) - 1)
    assert max(block.stride for block in last) == (1 if dc5 else 2)
