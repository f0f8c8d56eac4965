# COCO as Conditional DETR's authors train on it: overrides of mmdet's DETR config. Unchanged from mmdet:
# AdamW (1e-4, backbone 1e-5, weight decay 1e-4), gradient clip 0.1, two images per GPU, the test size, the runtime.
_base_ = ['mmdet::detr/detr_r50_8xb2-150e_coco.py', '../hooks.py']
default_hooks = {{_base_.our_hooks}}

# mmdet's augmentation differs in one place: it caps the longer side at 1333 in the resize before the crop, which the
# authors do not, so a panorama becomes thinner than the crop's smallest side of 384. An edge this long never caps.
# RandomCrop draws height and width from [384, min(side, 600)] as the authors' RandomSizeCrop does, and keeps a crop
# that holds no box. Still different (docs/fidelity.md): OpenCV resizes, not PIL; sides are rounded, not truncated.
no_cap = 100000
dataset_type = 'mmcondetr.CocoDataset'
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
                    keep_ratio=True,
                ),
                dict(
                    type='mmdet.RandomCrop', crop_type='absolute_range', crop_size=(384, 600), allow_negative_crop=True
                ),
                dict(type='mmcv.RandomChoiceResize', resize_type='mmdet.Resize', scales=scales, keep_ratio=True),
            ],
        ],
    ),
    dict(type='mmdet.PackDetInputs'),
]
test_pipeline = [
    dict(type='mmcondetr.LoadImage', backend_args={{_base_.backend_args}}),
    dict(type='mmdet.Resize', scale=(1333, 800), keep_ratio=True),
    dict(type='mmdet.LoadAnnotations', with_bbox=True),
    dict(type='mmdet.PackDetInputs', meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor')),
]

# The authors train on all images, including those without a box, and do not group images by aspect ratio.
train_dataloader = dict(
    sampler=dict(type='mmcondetr.EpochSampler'),
    batch_sampler=None,
    dataset=dict(type=dataset_type, filter_cfg=None, pipeline=train_pipeline),
)
val_dataloader = dict(dataset=dict(type=dataset_type, pipeline=test_pipeline))
test_dataloader = val_dataloader
val_evaluator = dict(type='mmcondetr.CocoMetric')
test_evaluator = val_evaluator
