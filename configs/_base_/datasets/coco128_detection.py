# The first 128 images of COCO train2017 with all 80 classes. Another place: COCO128_ROOT=/path/to/coco128/
# Trained and tested on the same images: a check that a model can learn them, not a measure of anything else. Without
# ImageNet weights an AP on it is one 'from scratch'. The first 16 images alone:
# --cfg-options train_dataloader.dataset.indices=16 val_dataloader.dataset.indices=16 test_dataloader.dataset.indices=16
_base_ = './own_detection.py'

data_root = '{{$COCO128_ROOT:data/coco128/}}'
scale = (320, 320)  # the longer side, for a CPU; COCO's own is (1333, 800)

train_pipeline = [
    dict(type='mmcondetr.LoadImage'),
    dict(type='mmdet.LoadAnnotations', with_bbox=True),
    dict(type='mmdet.Resize', scale=scale, keep_ratio=True),
    dict(type='mmdet.RandomFlip', prob=0.5),
    dict(type='mmdet.PackDetInputs'),
]
test_pipeline = [
    dict(type='mmcondetr.LoadImage'),
    dict(type='mmdet.Resize', scale=scale, keep_ratio=True),
    dict(type='mmdet.LoadAnnotations', with_bbox=True),
    dict(type='mmdet.PackDetInputs', meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor')),
]

train_dataloader = dict(
    batch_size=4,
    dataset=dict(
        data_root=data_root,
        ann_file='annotations/instances_train2017.json',
        data_prefix=dict(img='train2017/'),
        pipeline=train_pipeline,
    ),
)
val_dataloader = dict(
    dataset=dict(
        data_root=data_root,
        ann_file='annotations/instances_train2017.json',
        data_prefix=dict(img='train2017/'),
        pipeline=test_pipeline,
    )
)
test_dataloader = val_dataloader

val_evaluator = dict(ann_file=data_root + 'annotations/instances_train2017.json')
test_evaluator = val_evaluator
