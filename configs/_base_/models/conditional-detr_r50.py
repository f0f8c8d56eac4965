# Conditional DETR-R50 on COCO as its authors train it, said as the difference from mmdet's DETR-R50. What stays mmdet's:
# the data preprocessor, ResNet-50, AdamW (1e-4, backbone 1e-5, weight decay 1e-4), gradient clip 0.1, the test pipeline.
_base_ = 'mmdet::detr/detr_r50_8xb2-150e_coco.py'
custom_imports = dict(imports=['mmcondetr'], allow_failed_imports=False)

model = dict(
    type='mmcondetr.ConditionalDETR',
    num_queries=300,
    data_preprocessor=dict(type='mmdet.DetDataPreprocessor'),
    # torchvision's IMAGENET1K_V1 weights by URL, so that neither torchvision nor its resolver is needed. A local copy:
    # --cfg-options model.backbone.init_cfg.checkpoint=/path/to/resnet50-0676ba61.pth
    backbone=dict(
        type='mmdet.ResNet',
        init_cfg=dict(type='Pretrained', checkpoint='https://download.pytorch.org/models/resnet50-0676ba61.pth')),
    neck=dict(type='mmdet.ChannelMapper'),
    positional_encoding=dict(type='mmdet.SinePositionalEncoding'),
    encoder=dict(
        _delete_=True,
        type='mmcondetr.TransformerEncoder',
        num_layers=6,
        layer=dict(
            type='mmcondetr.TransformerEncoderLayer',
            embed_dims=256, num_heads=8, feedforward_channels=2048, dropout=0.1)),
    decoder=dict(
        _delete_=True,
        type='mmcondetr.ConditionalDecoder',
        num_layers=6,
        layer=dict(
            type='mmcondetr.ConditionalDecoderLayer',
            embed_dims=256, num_heads=8, feedforward_channels=2048, dropout=0.1),
        reference_point=dict(type='mmcondetr.ReferencePoint', embed_dims=256),
        spatial_query=dict(type='mmcondetr.ConditionalSpatialQueryHead', embed_dims=256, num_heads=8)),
    bbox_head=dict(
        type='mmcondetr.ConditionalDETRHead',
        loss_cls=dict(
            _delete_=True, type='mmdet.FocalLoss', use_sigmoid=True, gamma=2.0, alpha=0.25, loss_weight=2.0),
        loss_bbox=dict(type='mmdet.L1Loss'),
        loss_iou=dict(type='mmdet.GIoULoss')),
    train_cfg=dict(
        assigner=dict(
            _delete_=True, type='mmcondetr.HungarianMatcher', class_cost=2.0, bbox_cost=5.0, giou_cost=2.0)))

# The authors' augmentation. mmdet's differs in one place: it caps the longer side at 1333 in the resize before the crop,
# which the authors do not, so panoramas could be thinner than the crop's least side of 384. No cap is so long an edge
# that it never binds. What is left (docs/fidelity.md): pixels are resized by OpenCV, not PIL, and sides are rounded, not
# truncated. RandomCrop draws height and width from [384, min(side, 600)] as the authors' RandomSizeCrop does, in the
# other order, and keeps a crop that holds no box.
no_cap = 100000
scales = [(side, 1333) for side in range(480, 801, 32)]
train_pipeline = [
    dict(type='mmcondetr.LoadImage', backend_args={{_base_.backend_args}}),
    dict(type='mmdet.LoadAnnotations', with_bbox=True),
    dict(type='mmdet.RandomFlip', prob=0.5),
    dict(
        type='mmcv.RandomChoice',
        transforms=[
            [dict(type='mmcv.RandomChoiceResize', resize_type='mmdet.Resize', scales=scales, keep_ratio=True)],
            [
                dict(
                    type='mmcv.RandomChoiceResize',
                    resize_type='mmdet.Resize',
                    scales=[(400, no_cap), (500, no_cap), (600, no_cap)],
                    keep_ratio=True),
                dict(
                    type='mmdet.RandomCrop',
                    crop_type='absolute_range',
                    crop_size=(384, 600),
                    allow_negative_crop=True),
                dict(type='mmcv.RandomChoiceResize', resize_type='mmdet.Resize', scales=scales, keep_ratio=True)
            ]
        ]),
    dict(type='mmdet.PackDetInputs')
]
# The authors train on every image, also those without a box, and do not group images by their aspect ratio.
train_dataloader = dict(batch_sampler=None, dataset=dict(filter_cfg=None, pipeline=train_pipeline))
