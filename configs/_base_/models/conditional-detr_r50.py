# Conditional DETR-R50: overrides of the model in mmdet::detr/detr_r50_8xb2-150e_coco.py.
_base_ = '../datasets/coco_detr.py'

model = dict(
    type='mmcondetr.ConditionalDETR',
    num_queries=300,
    data_preprocessor=dict(type='mmdet.DetDataPreprocessor'),
    # torchvision's IMAGENET1K_V1 weights by URL, so that neither torchvision nor its resolver is needed. A local copy:
    # --cfg-options model.backbone.init_cfg.checkpoint=/path/to/resnet50-0676ba61.pth
    backbone=dict(
        type='mmcondetr.ResNet',
        init_cfg=dict(type='Pretrained', checkpoint='https://download.pytorch.org/models/resnet50-0676ba61.pth'),
    ),
    neck=dict(type='mmcondetr.InputProjection'),
    positional_encoding=dict(type='mmdet.SinePositionalEncoding'),
    encoder=dict(
        _delete_=True,
        type='mmcondetr.TransformerEncoder',
        num_layers=6,
        layer=dict(
            type='mmcondetr.TransformerEncoderLayer',
            embed_dims=256,
            num_heads=8,
            feedforward_channels=2048,
            dropout=0.1,
        ),
    ),
    decoder=dict(
        _delete_=True,
        type='mmcondetr.ConditionalDecoder',
        num_layers=6,
        layer=dict(
            type='mmcondetr.ConditionalDecoderLayer',
            embed_dims=256,
            num_heads=8,
            feedforward_channels=2048,
            dropout=0.1,
        ),
        reference_point=dict(type='mmcondetr.ReferencePoint', embed_dims=256),
        spatial_query=dict(type='mmcondetr.ConditionalSpatialQueryHead', embed_dims=256, num_heads=8),
    ),
    bbox_head=dict(
        type='mmcondetr.ConditionalDETRHead',
        loss_cls=dict(_delete_=True, type='mmdet.FocalLoss', use_sigmoid=True, gamma=2.0, alpha=0.25, loss_weight=2.0),
        loss_bbox=dict(type='mmdet.L1Loss'),
        loss_iou=dict(type='mmdet.GIoULoss'),
    ),
    train_cfg=dict(
        assigner=dict(_delete_=True, type='mmcondetr.HungarianMatcher', class_cost=2.0, bbox_cost=5.0, giou_cost=2.0)
    ),
)
