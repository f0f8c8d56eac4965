"""Conditional DETR, one concept per file: image -> backbone -> neck -> encoder -> decoder -> head -> boxes.

The core of the paper is in decoder.py (the loop of §3.3), attention.py (eq. 3), spatial_query.py (eq. 4-6) and
reference.py (§3.3, the reference point).

Shape letters used throughout this package:

====  =======================================================================================
B     images in the batch
N     object queries (300)
S     memory tokens: the h * w positions of the backbone's last feature map
D     channels of the transformer, ``embed_dims`` (256)
H     attention heads, ``num_heads`` (8)
L     decoder layers (6)
====  =======================================================================================

Everything is batch-first. Boxes are (cx, cy, w, h) in fractions of the unpadded image unless a docstring says
otherwise. Reference points are passed around as logits; the sigmoid is taken where they are used. A mask is True where
a memory token is padding.
"""

from mmcondetr.models.ablations.additive import (
    AdditiveCrossAttention,
    AdditiveDecoderLayer,
    AdditiveReferencePoint,
    AdditiveZeroReferencePoint,
    ContentCrossAttention,
    FirstPositionDecoderLayer,
)
from mmcondetr.models.ablations.frozen_queries import FrozenQueries
from mmcondetr.models.ablations.group_controls import MixedQueryGroups, OneToMany
from mmcondetr.models.ablations.reference_points import LearnedReferencePoint, ZeroReferencePoint
from mmcondetr.models.ablations.softmax_head import SoftmaxDETRHead, SoftmaxHungarianMatcher
from mmcondetr.models.ablations.spatial_queries import (
    ContentSpatialQuery,
    PositionSpatialQuery,
    SelfAttentionSpatialQueryHead,
    TransformSpatialQuery,
)
from mmcondetr.models.ablations.transforms import BlockTransform, FullTransform, IdentityTransform, SingleTransform
from mmcondetr.models.attention import ConditionalCrossAttention, FirstConditionalCrossAttention, SelfAttention
from mmcondetr.models.backbone import InputProjection, ResNet, ResNetDC5
from mmcondetr.models.dab import AnchorBoxes, LabelledAnchorBoxes, PatternAnchorBoxes, ScaledPositionEncoder
from mmcondetr.models.decoder import ConditionalDecoder, ConditionalDecoderLayer
from mmcondetr.models.detector import ConditionalDETR
from mmcondetr.models.encoder import TransformerEncoder, TransformerEncoderLayer
from mmcondetr.models.head import ConditionalDETRHead
from mmcondetr.models.masks.mask_head import MaskHead
from mmcondetr.models.matching import HungarianMatcher
from mmcondetr.models.reference import ReferencePoint
from mmcondetr.models.spatial_query import ConditionalSpatialQueryHead, DiagonalTransform
from mmcondetr.models.training.denoising_anchors import DenoisingQueries
from mmcondetr.models.training.denoising_points import DenoisingPoints
from mmcondetr.models.training.groups import QueryGroups
from mmcondetr.models.training.queries import ObjectQueries

__all__ = [
    'AdditiveCrossAttention',
    'AdditiveDecoderLayer',
    'AdditiveReferencePoint',
    'AdditiveZeroReferencePoint',
    'AnchorBoxes',
    'BlockTransform',
    'ConditionalCrossAttention',
    'ConditionalDETR',
    'ConditionalDETRHead',
    'ConditionalDecoder',
    'ConditionalDecoderLayer',
    'ConditionalSpatialQueryHead',
    'ContentCrossAttention',
    'ContentSpatialQuery',
    'DenoisingPoints',
    'DenoisingQueries',
    'DiagonalTransform',
    'FirstConditionalCrossAttention',
    'FirstPositionDecoderLayer',
    'FrozenQueries',
    'FullTransform',
    'HungarianMatcher',
    'IdentityTransform',
    'InputProjection',
    'LabelledAnchorBoxes',
    'LearnedReferencePoint',
    'MaskHead',
    'MixedQueryGroups',
    'ObjectQueries',
    'OneToMany',
    'PatternAnchorBoxes',
    'PositionSpatialQuery',
    'QueryGroups',
    'ReferencePoint',
    'ResNet',
    'ResNetDC5',
    'ScaledPositionEncoder',
    'SelfAttention',
    'SelfAttentionSpatialQueryHead',
    'SingleTransform',
    'SoftmaxDETRHead',
    'SoftmaxHungarianMatcher',
    'TransformSpatialQuery',
    'TransformerEncoder',
    'TransformerEncoderLayer',
    'ZeroReferencePoint',
]
