"""Tables, as in rules.py, of DETR's names and its mask head's, derived from Conditional DETR's of the same code."""

from __future__ import annotations

from collections.abc import Iterable

Rule = tuple[str | tuple[str, ...], str]


def masks() -> list[Rule]:
    """The mask head's names in DETR's code; Hugging Face's files have the same."""
    rules: list[Rule] = [
        (f'bbox_attention.{short}_linear.{{p}}', f'mask_head.attention.{name}_proj.{{p}}')
        for short, name in (('q', 'query'), ('k', 'key'))
    ]
    for index in range(5):
        rules += [
            (f'mask_head.lay{index + 1}.{{p}}', f'mask_head.convs.{index}.{{p}}'),
            (f'mask_head.gn{index + 1}.{{p}}', f'mask_head.norms.{index}.{{p}}'),
        ]
    rules += [(f'mask_head.adapter{index + 1}.{{p}}', f'mask_head.laterals.{index}.{{p}}') for index in range(3)]
    return [*rules, ('mask_head.out_lay.{p}', 'mask_head.predictor.{p}')]


def masks_in_memory() -> list[Rule]:
    """The mask head's names in ``state_dict()`` of a model of transformers 5."""
    rules: list[Rule] = [
        (f'bbox_attention.{short}_proj.{{p}}', f'mask_head.attention.{name}_proj.{{p}}')
        for short, name in (('q', 'query'), ('k', 'key'))
    ]
    blocks = ['conv1', 'conv2', *(f'fpn_stages.{index}.refine' for index in range(3))]
    for index, block in enumerate(blocks):
        rules += [
            (f'mask_head.{block}.conv.{{p}}', f'mask_head.convs.{index}.{{p}}'),
            (f'mask_head.{block}.norm.{{p}}', f'mask_head.norms.{index}.{{p}}'),
        ]
    rules += [
        (f'mask_head.fpn_stages.{index}.fpn_adapter.{{p}}', f'mask_head.laterals.{index}.{{p}}') for index in range(3)
    ]
    return [*rules, ('mask_head.output_conv.{p}', 'mask_head.predictor.{p}')]


def behind(prefix: str, rules: Iterable[Rule]) -> list[Rule]:
    """The rules of a model that is a submodule of another."""
    return [
        (prefix + theirs if isinstance(theirs, str) else tuple(prefix + name for name in theirs), ours)
        for theirs, ours in rules
    ]


def authors(conditional: Iterable[Rule]) -> list[Rule]:
    """DETR's names, from those of Conditional DETR's authors: attention is PyTorch's, the query embedding is added."""
    decoder, ours = 'transformer.decoder.layers.{i}.', 'decoder.layers.{i}.'
    rules = _without_decoder_attention(conditional)
    for theirs, own in (('self_attn', 'self_attn'), ('multihead_attn', 'cross_attn')):
        rules += [
            (f'{decoder}{theirs}.in_proj_{{p}}', f'{ours}{own}.in_proj.{{p}}'),
            (f'{decoder}{theirs}.out_proj.{{p}}', f'{ours}{own}.out_proj.{{p}}'),
        ]
    return rules


def huggingface(conditional: Iterable[Rule], out: str) -> list[Rule]:
    """Hugging Face's DETR, from its Conditional DETR; ``out`` is the name of the output projection of attention."""
    decoder, ours = 'model.decoder.layers.{i}.', 'decoder.layers.{i}.'
    rules = _without_decoder_attention(conditional)
    for theirs, own in (('self_attn', 'self_attn'), ('encoder_attn', 'cross_attn')):
        parts = tuple(f'{decoder}{theirs}.{name}_proj.{{p}}' for name in 'qkv')
        rules += [
            (parts, f'{ours}{own}.in_proj.{{p}}'),
            (f'{decoder}{theirs}.{out}.{{p}}', f'{ours}{own}.out_proj.{{p}}'),
        ]
    return rules


def _without_decoder_attention(conditional: Iterable[Rule]) -> list[Rule]:
    """Also without the predictors of transforms and reference points."""
    gone = ('decoder.layers.{i}.self_attn', 'decoder.layers.{i}.cross_attn', 'decoder.spatial', 'decoder.reference')
    return [rule for rule in conditional if not rule[1].startswith(gone)]
