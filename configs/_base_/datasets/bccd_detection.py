# BCCD: photos of blood cells, 640 x 480, three classes (train 205, val 87, test 72 images). Another place:
# BCCD_ROOT=/path/to/bccd/  Without ImageNet weights an AP on it is one 'from scratch'.
_base_ = './own_detection.py'

data_root = '{{$BCCD_ROOT:data/bccd/}}'
metainfo = dict(classes=('RBC', 'WBC', 'Platelets'), palette=[(220, 20, 60), (90, 60, 200), (250, 170, 30)])
scale = (320, 240)  # half of the photos' size, for a CPU

train_pipeline = [
    dict(type='mmcondetr.LoadImage'),
    dict(type='mmdet.LoadAnnotations', with_bbox=True),
    dict(type='mmdet.Resize', scale=scale, keep_ratio=True),
    dict(type='mmdet.RandomFlip', prob=[0.25, 0.25, 0.25], direction=['horizontal', 'vertical', 'diagonal']),
    dict(type='mmdet.PackDetInputs'),
]
test_pipeline = [
    dict(type='mmcondetr.LoadImage'),
    dict(type='mmdet.Resize', scale=scale, keep_ratio=True),
    dict(type='mmdet.LoadAnnotations', with_bbox=True),
    dict(type='mmdet.PackDetInputs', meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor')),
]

train_dataloader = dict(
    dataset=dict(
        data_root=data_root,
        ann_file='annotations/train.json',
        data_prefix=dict(img='images/'),
        metainfo=metainfo,
        pipeline=train_pipeline,
    )
)
val_dataloader = dict(
    batch_size=8,
    dataset=dict(
        data_root=data_root,
        ann_file='annotations/val.json',
        data_prefix=dict(img='images/'),
        metainfo=metainfo,
        pipeline=test_pipeline,
    ),
)
test_dataloader = dict(val_dataloader, dataset=dict(val_dataloader['dataset'], ann_file='annotations/test.json'))

val_evaluator = dict(ann_file=data_root + 'annotations/val.json')
test_evaluator = dict(ann_file=data_root + 'annotations/test.json')
