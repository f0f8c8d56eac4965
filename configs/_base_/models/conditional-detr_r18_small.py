# A small Conditional DETR for a CPU, 2.7 M parameters: half a ResNet-18 to stride 16, 128 channels, 3 + 4 layers.
# From scratch: nothing is pretrained, so nothing is frozen, and BatchNorm learns its statistics.
embed_dims = 128
num_heads = 8
layer = dict(embed_dims=embed_dims, num_heads=num_heads, feedforward_channels=512, dropout=0.0)

model = dict(
    type='mmcondetr.ConditionalDETR',
    num_queries=30,
    data_preprocessor=dict(
        type='mmdet.DetDataPreprocessor',
        mean=[123.675, 116.28, 103.53],
        std=[58.395, 57.12, 57.375],
        bgr_to_rgb=True,
        pad_size_divisor=1,
    ),
    backbone=dict(
        type='mmcondetr.ResNet',
        depth=18,
        base_channels=32,
        num_stages=3,
        strides=(1, 2, 2),
        dilations=(1, 1, 1),
        out_indices=(2,),
        frozen_stages=-1,
        norm_cfg=dict(type='BN', requires_grad=True),
        norm_eval=False,
        style='pytorch',
        init_cfg=None,
    ),
    neck=dict(
        type='mmdet.ChannelMapper',
        in_channels=[128],
        kernel_size=1,
        out_channels=embed_dims,
        act_cfg=None,
        norm_cfg=None,
        num_outs=1,
    ),
    positional_encoding=dict(type='mmdet.SinePositionalEncoding', num_feats=embed_dims // 2, normalize=True),
    encoder=dict(
        type='mmcondetr.TransformerEncoder', num_layers=3, layer=dict(type='mmcondetr.TransformerEncoderLayer', **layer)
    ),
    decoder=dict(
        type='mmcondetr.ConditionalDecoder',
        num_layers=4,
        layer=dict(type='mmcondetr.ConditionalDecoderLayer', **layer),
        reference_point=dict(type='mmcondetr.ReferencePoint', embed_dims=embed_dims),
        spatial_query=dict(type='mmcondetr.ConditionalSpatialQueryHead', embed_dims=embed_dims, num_heads=num_heads),
    ),
    bbox_head=dict(
        type='mmcondetr.ConditionalDETRHead',
        num_classes=6,
        embed_dims=embed_dims,
        loss_cls=dict(type='mmdet.FocalLoss', use_sigmoid=True, gamma=2.0, alpha=0.25, loss_weight=2.0),
        loss_bbox=dict(type='mmdet.L1Loss', loss_weight=5.0),
        loss_iou=dict(type='mmdet.GIoULoss', loss_weight=2.0),
    ),
    train_cfg=dict(assigner=dict(type='mmcondetr.HungarianMatcher', class_cost=2.0, bbox_cost=5.0, giou_cost=2.0)),
    test_cfg=dict(max_per_img=30),
)
