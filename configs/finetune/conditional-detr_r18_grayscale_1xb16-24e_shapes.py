# Without colour, for X-rays and thermal images: every image becomes three equal channels, as grey files already do, so
# weights from colour photos remain usable, and training and use cannot differ in colour.
_base_ = '../shapes/conditional-detr_r18_small_1xb16-24e_shapes.py'

load = [
    dict(type='mmcondetr.LoadImage'),
    dict(type='mmdet.LoadAnnotations', with_bbox=True),
    dict(type='RandomGrayscale', prob=1.0, keep_channels=True),
]
train_pipeline = [*load, dict(type='mmdet.RandomFlip', prob=0.5), dict(type='mmdet.PackDetInputs')]
keys = ('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor')
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(pipeline=[*load, dict(type='mmdet.PackDetInputs', meta_keys=keys)]))
test_dataloader = val_dataloader
load_from = '{{ fileDirname }}/../shapes/conditional-detr_r18_small_shapes-start.safetensors'
