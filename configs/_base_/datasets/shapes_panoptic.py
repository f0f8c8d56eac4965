# The panoptic form of the shapes: six kinds of things over three kinds of stuff. Drawn to SHAPES_ROOT on first use.
_base_ = './shapes_detection.py'

data_root = '{{$SHAPES_ROOT:data/shapes-panoptic/}}'
train_pipeline = [
    dict(type='mmcondetr.LoadImage'),
    dict(type='mmcondetr.LoadPanoptic'),
    dict(type='mmdet.RandomFlip', prob=0.5),
    dict(type='mmdet.PackDetInputs'),
]
test_pipeline = [
    dict(type='mmcondetr.LoadImage'),
    dict(type='mmcondetr.LoadPanoptic'),
    dict(type='mmdet.PackDetInputs', meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor')),
]
train_dataloader = dict(
    dataset=dict(
        type='mmcondetr.PanopticShapesDataset',
        data_root=data_root,
        ann_file='annotations/panoptic_train.json',
        data_prefix=dict(img='train/', seg='panoptic_train/'),
        pipeline=train_pipeline,
    )
)
val_dataloader = dict(
    dataset=dict(
        type='mmcondetr.PanopticShapesDataset',
        data_root=data_root,
        ann_file='annotations/panoptic_val.json',
        data_prefix=dict(img='val/', seg='panoptic_val/'),
        pipeline=test_pipeline,
    )
)
test_dataloader = val_dataloader
val_evaluator = dict(
    _delete_=True,
    type='mmcondetr.CocoPanopticMetric',
    ann_file=data_root + 'annotations/panoptic_val.json',
    seg_prefix=data_root + 'panoptic_val/',
    classwise=True,
)
test_evaluator = val_evaluator
