# DETR's panoptic model on our parts: the additive decoder, softmax, 100 queries; its detector is frozen.
_base_ = './conditional-detr_r50_panoptic.py'
weight = [1.0] * 133 + [0.1]  # the last one is background
model = dict(
    num_queries=100,
    decoder=dict(
        layer=dict(type='mmcondetr.AdditiveDecoderLayer'),
        reference_point=dict(type='mmcondetr.AdditiveZeroReferencePoint'),
        spatial_query=dict(type='mmcondetr.PositionSpatialQuery'),
    ),
    bbox_head=dict(
        type='mmcondetr.SoftmaxDETRHead',
        loss_cls=dict(_delete_=True, type='mmdet.CrossEntropyLoss', class_weight=weight, loss_weight=1.0),
    ),
    train_cfg=dict(assigner=dict(type='mmcondetr.SoftmaxHungarianMatcher', class_cost=1.0)),
    mask_head=dict(freeze_detector=True, panoptic=dict(score_threshold=0.85)),
)
