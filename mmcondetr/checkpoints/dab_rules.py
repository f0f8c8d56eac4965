"""What DAB-DETR's checkpoints name otherwise than Conditional DETR's of the same code base: tables, as in rules.py."""

from __future__ import annotations

from collections.abc import Iterable

Rule = tuple[str | tuple[str, ...], str]

_PREDICTORS = (('ref_point_head', 'query_predictor'), ('ref_anchor_head', 'size_predictor'))


def _instead(conditional: Iterable[Rule], rules: Iterable[Rule]) -> tuple[Rule, ...]:
    """Conditional DETR's rules without those for a name that DAB-DETR uses otherwise or does not have."""
    gone = ('ref_point_head.', 'query_embed.')
    kept = (rule for rule in conditional if not any(part in name for name in _names(rule) for part in gone))
    return (*kept, *rules)


def _names(rule: Rule) -> tuple[str, ...]:
    return (rule[0],) if isinstance(rule[0], str) else rule[0]


def authors(conditional: Iterable[Rule]) -> tuple[Rule, ...]:
    """DAB-DETR's authors', from those of Conditional DETR's authors, whose code theirs was made from."""
    rules: list[Rule] = [
        ('refpoint_embed.weight', 'query_embedding.weight'),
        ('transformer.patterns.weight', 'decoder.reference_point.patterns.weight'),
        ('label_enc.weight', 'training_queries.label_embedding.weight'),  # DN-DETR's; see label_embeddings.py
        ('transformer.encoder.query_scale.layers.{i}.{p}', 'encoder.position_scale.layers.{i}.{p}'),
    ]
    rules += [
        (f'transformer.decoder.{theirs}.layers.{{i}}.{{p}}', f'decoder.reference_point.{ours}.layers.{{i}}.{{p}}')
        for theirs, ours in _PREDICTORS
    ]
    rules += [
        (f'transformer.{part}.layers.{{i}}.activation.weight', f'{part}.layers.{{i}}.ffn.activation.weight')
        for part in ('encoder', 'decoder')
    ]
    return _instead(conditional, rules)


def mmdet(conditional: Iterable[Rule]) -> tuple[Rule, ...]:
    """mmdet's DAB-DETR, from its Conditional DETR."""
    rules: list[Rule] = [
        ('patterns.weight', 'decoder.reference_point.patterns.weight'),
        ('encoder.query_scale.layers.{i}.{p}', 'encoder.position_scale.layers.{i}.{p}'),
        ('bbox_head.fc_reg.layers.{i}.{p}', 'bbox_head.box_embed.layers.{i}.{p}'),
    ]
    rules += [
        (f'decoder.{theirs}.layers.{{i}}.{{p}}', f'decoder.reference_point.{ours}.layers.{{i}}.{{p}}')
        for theirs, ours in _PREDICTORS
    ]
    rules += [
        (f'{part}.layers.{{i}}.ffn.layers.0.1.weight', f'{part}.layers.{{i}}.ffn.activation.weight')
        for part in ('encoder', 'decoder')
    ]
    box_mlp = ('bbox_head.reg_ffn', 'bbox_head.fc_reg')
    return _instead((rule for rule in conditional if not _names(rule)[0].startswith(box_mlp)), rules)
