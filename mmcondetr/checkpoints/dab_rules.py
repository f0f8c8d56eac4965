"""Tables, as in rules.py, of names that differ between DAB-DETR and Conditional DETR of the same code base."""

from __future__ import annotations

from collections.abc import Iterable

Rule = tuple[str | tuple[str, ...], str]

_PREDICTORS = (('ref_point_head', 'query_predictor'), ('ref_anchor_head', 'size_predictor'))


def _replace_rules(conditional: Iterable[Rule], rules: Iterable[Rule]) -> tuple[Rule, ...]:
    """``rules``, added to Conditional DETR's rules except those for names that DAB-DETR lacks or uses differently."""
    removed = ('ref_point_head.', 'query_embed.')
    kept = (rule for rule in conditional if not any(part in name for name in _names(rule) for part in removed))
    return (*kept, *rules)


def _names(rule: Rule) -> tuple[str, ...]:
    return (rule[0],) if isinstance(rule[0], str) else rule[0]


def authors(conditional: Iterable[Rule]) -> tuple[Rule, ...]:
    """Rules of DAB-DETR's authors, derived from those of Conditional DETR's authors, on whose code theirs is based."""
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
    return _replace_rules(conditional, rules)


def mmdet(conditional: Iterable[Rule]) -> tuple[Rule, ...]:
    """Rules of mmdet's DAB-DETR, derived from those of its Conditional DETR."""
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
    return _replace_rules((rule for rule in conditional if not _names(rule)[0].startswith(box_mlp)), rules)
