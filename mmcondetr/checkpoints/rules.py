"""Tables of each family's names for our tensors.

A rule is (their name, our name). ``{i}`` stands for a number, ``{p}`` for ``weight`` or ``bias``, ``{n}`` for the
tensors of a BatchNorm. If one of our tensors is split into three in their format, the left side is a tuple: our rows
are the concatenation of theirs.

Our own names are those of ``ConditionalDETR.state_dict()``; see docs/architecture.md.
"""

from __future__ import annotations

from typing import NamedTuple

from mmcondetr.checkpoints import dab_rules, detr_rules

Rule = tuple[str | tuple[str, ...], str]


class Family(NamedTuple):
    """A naming scheme for the tensors of a Conditional DETR; a code base with two layouts is two families.

    Attributes:
        name: identifier.
        title: the code base, for messages.
        rules: all of its names.
        ignored: regular expressions of names that are dropped.
        keeps_counters: whether BatchNorm's ``num_batches_tracked`` is part of the format; otherwise it is dropped.
    """

    name: str
    title: str
    rules: tuple[Rule, ...]
    ignored: tuple[str, ...] = ()
    keeps_counters: bool = False


_ATTENTION = ('query_content_proj', 'query_position_proj', 'key_content_proj', 'key_position_proj', 'value_proj')


def _attention(theirs: str, ours: str, names: tuple[str, ...]) -> list[Rule]:
    """The five projections of a decoder attention, in the order of ``_ATTENTION``."""
    return [(f'{theirs}{name}.{{p}}', f'{ours}.{own}.{{p}}') for name, own in zip(names, _ATTENTION)]


def _resnet(prefix: str) -> list[Rule]:
    """torchvision's (and timm's) ResNet names, which are also ours after ``backbone.``."""
    rules = [(f'{prefix}conv1.weight', 'backbone.conv1.weight'), (f'{prefix}bn1.{{n}}', 'backbone.bn1.{n}')]
    for stage in range(1, 5):
        theirs, ours = f'{prefix}layer{stage}.{{i}}', f'backbone.layer{stage}.{{i}}'
        for conv in range(1, 4):
            rules += [
                (f'{theirs}.conv{conv}.weight', f'{ours}.conv{conv}.weight'),
                (f'{theirs}.bn{conv}.{{n}}', f'{ours}.bn{conv}.{{n}}'),
            ]
        rules += [
            (f'{theirs}.downsample.0.weight', f'{ours}.downsample.0.weight'),
            (f'{theirs}.downsample.1.{{n}}', f'{ours}.downsample.1.{{n}}'),
        ]
    return rules


def _transformers_resnet(prefix: str) -> list[Rule]:
    """Names of transformers' own ResNet (``ResNetConfig``), which counts everything from 0."""
    convolution, norm = 'convolution.weight', 'normalization.{n}'
    stem = f'{prefix}embedder.embedder.'
    rules = [(stem + convolution, 'backbone.conv1.weight'), (stem + norm, 'backbone.bn1.{n}')]
    for stage in range(4):
        theirs, ours = f'{prefix}encoder.stages.{stage}.layers.{{i}}.', f'backbone.layer{stage + 1}.{{i}}.'
        for conv in range(3):
            rules += [
                (f'{theirs}layer.{conv}.{convolution}', f'{ours}conv{conv + 1}.weight'),
                (f'{theirs}layer.{conv}.{norm}', f'{ours}bn{conv + 1}.{{n}}'),
            ]
        rules += [
            (f'{theirs}shortcut.{convolution}', f'{ours}downsample.0.weight'),
            (f'{theirs}shortcut.{norm}', f'{ours}downsample.1.{{n}}'),
        ]
    return rules


def _detectron2_resnet(prefix: str) -> list[Rule]:
    """Names of detectron2's ResNet: stages are res2 to res5, a norm belongs to its convolution."""
    rules = [
        (f'{prefix}stem.conv1.weight', 'backbone.conv1.weight'),
        (f'{prefix}stem.conv1.norm.{{n}}', 'backbone.bn1.{n}'),
    ]
    for stage in range(1, 5):
        theirs, ours = f'{prefix}res{stage + 1}.{{i}}.', f'backbone.layer{stage}.{{i}}.'
        for conv in range(1, 4):
            rules += [
                (f'{theirs}conv{conv}.weight', f'{ours}conv{conv}.weight'),
                (f'{theirs}conv{conv}.norm.{{n}}', f'{ours}bn{conv}.{{n}}'),
            ]
        rules += [
            (f'{theirs}shortcut.weight', f'{ours}downsample.0.weight'),
            (f'{theirs}shortcut.norm.{{n}}', f'{ours}downsample.1.{{n}}'),
        ]
    return rules


def _decoder_mlps(prefix: str = 'decoder.') -> list[Rule]:
    """The transform predictor and the reference point head, named the same by all families."""
    return [
        (f'{prefix}query_scale.layers.{{i}}.{{p}}', 'decoder.spatial_query.predictor.layers.{i}.{p}'),
        (f'{prefix}ref_point_head.layers.{{i}}.{{p}}', 'decoder.reference_point.predictor.layers.{i}.{p}'),
    ]


def _detr_ends() -> list[Rule]:
    """Input projection, object queries and heads, as named by DETR's authors."""
    return [
        ('input_proj.{p}', 'neck.convs.0.conv.{p}'),
        ('query_embed.weight', 'query_embedding.weight'),
        ('class_embed.{p}', 'bbox_head.class_embed.{p}'),
        ('bbox_embed.layers.{i}.{p}', 'bbox_head.box_embed.layers.{i}.{p}'),
    ]


def _authors() -> list[Rule]:
    encoder, decoder = 'transformer.encoder.layers.{i}.', 'transformer.decoder.layers.{i}.'
    rules = [
        (f'{encoder}self_attn.in_proj_{{p}}', 'encoder.layers.{i}.self_attn.in_proj.{p}'),
        (f'{encoder}self_attn.out_proj.{{p}}', 'encoder.layers.{i}.self_attn.out_proj.{p}'),
        (f'{decoder}self_attn.out_proj.{{p}}', 'decoder.layers.{i}.self_attn.out_proj.{p}'),
        (f'{decoder}cross_attn.out_proj.{{p}}', 'decoder.layers.{i}.cross_attn.out_proj.{p}'),
        (f'{decoder}ca_qpos_sine_proj.{{p}}', 'decoder.layers.{i}.cross_attn.query_spatial_proj.{p}'),
        ('transformer.decoder.norm.{p}', 'decoder.norm.{p}'),
    ]
    for attention, short in (('self_attn', 'sa'), ('cross_attn', 'ca')):
        names = tuple(f'{short}_{name}_proj' for name in ('qcontent', 'qpos', 'kcontent', 'kpos', 'v'))
        rules += _attention(decoder, f'decoder.layers.{{i}}.{attention}', names)
    for theirs, ours, norms in ((encoder, 'encoder.layers.{i}.', 2), (decoder, 'decoder.layers.{i}.', 3)):
        rules += [(f'{theirs}linear{n}.{{p}}', f'{ours}ffn.linear{n}.{{p}}') for n in (1, 2)]
        rules += [(f'{theirs}norm{n}.{{p}}', f'{ours}norm{n}.{{p}}') for n in range(1, norms + 1)]
    return rules + _decoder_mlps('transformer.decoder.') + _detr_ends() + _resnet('backbone.0.body.')


def _mmdet() -> list[Rule]:
    attention = 'encoder.layers.{i}.self_attn.'
    rules = [
        (f'{attention}attn.in_proj_{{p}}', f'{attention}in_proj.{{p}}'),
        (f'{attention}attn.out_proj.{{p}}', f'{attention}out_proj.{{p}}'),
        ('decoder.post_norm.{p}', 'decoder.norm.{p}'),
        ('query_embedding.weight', 'query_embedding.weight'),
        ('neck.convs.{i}.conv.{p}', 'neck.convs.{i}.conv.{p}'),
        ('bbox_head.fc_cls.{p}', 'bbox_head.class_embed.{p}'),
        ('bbox_head.reg_ffn.layers.0.0.{p}', 'bbox_head.box_embed.layers.0.{p}'),
        ('bbox_head.reg_ffn.layers.1.{p}', 'bbox_head.box_embed.layers.1.{p}'),
        ('bbox_head.fc_reg.{p}', 'bbox_head.box_embed.layers.2.{p}'),
    ]
    for attention in ('self_attn', 'cross_attn'):
        at = f'decoder.layers.{{i}}.{attention}'
        rules += _attention(f'{at}.', at, ('qcontent_proj', 'qpos_proj', 'kcontent_proj', 'kpos_proj', 'v_proj'))
        rules.append((f'{at}.out_proj.{{p}}', f'{at}.out_proj.{{p}}'))
    at = 'decoder.layers.{i}.cross_attn.'
    rules.append((f'{at}qpos_sine_proj.{{p}}', f'{at}query_spatial_proj.{{p}}'))
    for at, norms in (('encoder.layers.{i}.', 2), ('decoder.layers.{i}.', 3)):
        rules += [
            (f'{at}ffn.layers.0.0.{{p}}', f'{at}ffn.linear1.{{p}}'),
            (f'{at}ffn.layers.1.{{p}}', f'{at}ffn.linear2.{{p}}'),
        ]
        rules += [(f'{at}norms.{n}.{{p}}', f'{at}norm{n + 1}.{{p}}') for n in range(norms)]
    return rules + _decoder_mlps() + _resnet('backbone.')


def _detrex() -> list[Rule]:
    encoder, decoder = 'transformer.encoder.layers.{i}.', 'transformer.decoder.layers.{i}.'
    rules = [
        (f'{encoder}attentions.0.attn.in_proj_{{p}}', 'encoder.layers.{i}.self_attn.in_proj.{p}'),
        (f'{encoder}attentions.0.attn.out_proj.{{p}}', 'encoder.layers.{i}.self_attn.out_proj.{p}'),
        (f'{decoder}attentions.1.query_pos_sine_proj.{{p}}', 'decoder.layers.{i}.cross_attn.query_spatial_proj.{p}'),
        ('transformer.decoder.post_norm_layer.{p}', 'decoder.norm.{p}'),
    ]
    names = ('query_content_proj', 'query_pos_proj', 'key_content_proj', 'key_pos_proj', 'value_proj')
    for index, attention in enumerate(('self_attn', 'cross_attn')):
        theirs, ours = f'{decoder}attentions.{index}.', f'decoder.layers.{{i}}.{attention}'
        rules += [*_attention(theirs, ours, names), (f'{theirs}out_proj.{{p}}', f'{ours}.out_proj.{{p}}')]
    for theirs, ours, norms in ((encoder, 'encoder.layers.{i}.', 2), (decoder, 'decoder.layers.{i}.', 3)):
        rules += [
            (f'{theirs}ffns.0.layers.0.0.{{p}}', f'{ours}ffn.linear1.{{p}}'),
            (f'{theirs}ffns.0.layers.1.{{p}}', f'{ours}ffn.linear2.{{p}}'),
        ]
        rules += [(f'{theirs}norms.{n}.{{p}}', f'{ours}norm{n + 1}.{{p}}') for n in range(norms)]
    rules += _decoder_mlps('transformer.decoder.') + _detr_ends()
    # Its R50 and R101 use detectron2's ResNet, its DC5 models torchvision's.
    return rules + _detectron2_resnet('backbone.') + _resnet('backbone.body.')


def _huggingface_ends() -> list[Rule]:
    return [
        ('model.input_projection.{p}', 'neck.convs.0.conv.{p}'),
        ('model.query_position_embeddings.weight', 'query_embedding.weight'),
        ('model.decoder.layernorm.{p}', 'decoder.norm.{p}'),
        ('class_labels_classifier.{p}', 'bbox_head.class_embed.{p}'),
        ('bbox_predictor.layers.{i}.{p}', 'bbox_head.box_embed.layers.{i}.{p}'),
    ] + _decoder_mlps('model.decoder.')


def _huggingface_layers(attention: tuple[str, str], names: tuple[str, ...], out: str, feedforward: str) -> list[Rule]:
    """The transformer's layers.

    Args:
        attention: prefixes of the decoder's self- and cross-attention projections.
        names: the names of the five projections, then of the cross-attention's spatial query.
        out: name of the output projection of every attention.
        feedforward: prefix of ``fc1`` and ``fc2``.
    """
    encoder, decoder, own = 'model.encoder.layers.{i}.', 'model.decoder.layers.{i}.', 'decoder.layers.{i}.'
    rules: list[Rule] = [
        (tuple(f'{encoder}self_attn.{name}_proj.{{p}}' for name in 'qkv'), 'encoder.layers.{i}.self_attn.in_proj.{p}'),
        (f'{encoder}self_attn.{out}.{{p}}', 'encoder.layers.{i}.self_attn.out_proj.{p}'),
        (f'{decoder}self_attn.{out}.{{p}}', f'{own}self_attn.out_proj.{{p}}'),
        (f'{decoder}encoder_attn.{out}.{{p}}', f'{own}cross_attn.out_proj.{{p}}'),
        (f'{decoder}{attention[1]}{names[5]}.{{p}}', f'{own}cross_attn.query_spatial_proj.{{p}}'),
        (f'{encoder}self_attn_layer_norm.{{p}}', 'encoder.layers.{i}.norm1.{p}'),
        (f'{encoder}final_layer_norm.{{p}}', 'encoder.layers.{i}.norm2.{p}'),
        (f'{decoder}self_attn_layer_norm.{{p}}', f'{own}norm1.{{p}}'),
        (f'{decoder}encoder_attn_layer_norm.{{p}}', f'{own}norm2.{{p}}'),
        (f'{decoder}final_layer_norm.{{p}}', f'{own}norm3.{{p}}'),
    ]
    for prefix, module in zip(attention, ('self_attn', 'cross_attn')):
        rules += _attention(f'{decoder}{prefix}', f'{own}{module}', names[:5])
    for theirs, ours in ((encoder, 'encoder.layers.{i}.'), (decoder, own)):
        rules += [(f'{theirs}{feedforward}fc{n}.{{p}}', f'{ours}ffn.linear{n}.{{p}}') for n in (1, 2)]
    return rules


def _huggingface_on_disk() -> list[Rule]:
    """What ``save_pretrained`` of transformers 4 and 5 writes."""
    names = tuple(f'{name}_proj' for name in ('qcontent', 'qpos', 'kcontent', 'kpos', 'v', 'qpos_sine'))
    return _huggingface_layers(('sa_', 'ca_'), names, 'out_proj', '') + _huggingface_ends()


def _huggingface_in_memory() -> list[Rule]:
    """``state_dict()`` of a model in transformers 5, as written by ``torch.save`` or a custom trainer."""
    names = tuple(f'{name}_proj' for name in ('q_content', 'q_pos', 'k_content', 'k_pos', 'v', 'q_pos_sine'))
    return _huggingface_layers(('self_attn.', 'encoder_attn.'), names, 'o_proj', 'mlp.') + _huggingface_ends()


def _huggingface_detr() -> list[Rule]:
    """Hugging Face's DETR in every layout, the one on disk first: conversion writes its names."""
    disk, memory = _huggingface_on_disk(), _huggingface_in_memory()
    return [
        *detr_rules.huggingface(disk, 'out_proj'),
        *detr_rules.huggingface(memory, 'o_proj'),
        *_huggingface_backbones(),
    ]


def _huggingface_backbones() -> list[Rule]:
    return [rule for at in (_ON_DISK, _IN_MEMORY) for rule in (*_resnet(at), *_transformers_resnet(at))]


def _with_masks(prefix: str, rules: list[Rule], in_memory: bool = False) -> tuple[Rule, ...]:
    """In a model for masks, the detector is a submodule."""
    memory = detr_rules.masks_in_memory() if in_memory else []
    return (*detr_rules.behind(prefix, rules), *detr_rules.masks(), *memory)


def _ours(others: tuple[Rule, ...]) -> tuple[Rule, ...]:
    """Our own names, unchanged."""
    return tuple((ours, ours) for _, ours in others)


COUNTERS = r'.*\.num_batches_tracked'
_TRANSFORMERS = 'Hugging Face transformers'
_ON_DISK, _IN_MEMORY = 'model.backbone.conv_encoder.model.', 'model.backbone.model.'

FAMILIES: dict[str, Family] = {
    family.name: family
    for family in (
        Family(
            'mmcondetr',
            'mmcondetr',
            _ours(
                (
                    *_authors(),
                    *dab_rules.authors(_authors()),
                    *detr_rules.authors(_authors()),
                    *detr_rules.masks(),
                    ('', 'decoder.reference_point.unknown.weight'),
                )
            ),
            ignored=(r'training_queries\..*',),  # exists in training only
            keeps_counters=True,
        ),
        Family('authors', "the authors' code", tuple(_authors())),
        Family('mmdet', 'mmdet', tuple(_mmdet()), keeps_counters=True),
        # The authors store the box MLP twice, because their decoder refines anchors with the head's.
        Family(
            'dab-authors',
            "the code of DAB-DETR's authors",
            dab_rules.authors(_authors()),
            ignored=(r'transformer\.decoder\.bbox_embed\..*',),
        ),
        Family('dab-mmdet', "mmdet's DAB-DETR", dab_rules.mmdet(_mmdet()), keeps_counters=True),
        Family('detrex', 'detrex', tuple(_detrex()), ignored=(r'criterion\.empty_weight', r'pixel_(mean|std)')),
        Family('huggingface', f'{_TRANSFORMERS}, timm backbone', tuple(_huggingface_on_disk() + _resnet(_ON_DISK))),
        Family(
            'huggingface-resnet',
            f'{_TRANSFORMERS}, its own ResNet',
            tuple(_huggingface_on_disk() + _transformers_resnet(_ON_DISK)),
        ),
        Family(
            'huggingface-memory',
            f'{_TRANSFORMERS} (in memory), timm backbone',
            tuple(_huggingface_in_memory() + _resnet(_IN_MEMORY)),
        ),
        Family(
            'huggingface-memory-resnet',
            f'{_TRANSFORMERS} (in memory), its own ResNet',
            tuple(_huggingface_in_memory() + _transformers_resnet(_IN_MEMORY)),
        ),
        Family('detr', "DETR's code", tuple(detr_rules.authors(_authors()))),
        Family('detr-masks', "DETR's code, with masks", _with_masks('detr.', detr_rules.authors(_authors()))),
        Family('huggingface-detr', f'{_TRANSFORMERS}, DETR', tuple(_huggingface_detr())),
        Family(
            'huggingface-detr-masks',
            f'{_TRANSFORMERS}, DETR with masks',
            _with_masks('detr.', _huggingface_detr(), in_memory=True),
        ),
        Family(
            'huggingface-masks',
            f'{_TRANSFORMERS}, with masks',
            _with_masks(
                'conditional_detr.',
                [*_huggingface_on_disk(), *_huggingface_in_memory(), *_huggingface_backbones()],
                in_memory=True,
            ),
        ),
    )
}
