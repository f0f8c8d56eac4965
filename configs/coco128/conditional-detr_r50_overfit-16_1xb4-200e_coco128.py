# The first 16 images again and again, small, without dropout and flips: a check that the R50 model can learn them.
_base_ = './conditional-detr_r50_from-scratch_1xb4-100e_coco128.py'
layer = dict(dropout=0.)
model = dict(encoder=dict(layer=layer), decoder=dict(layer=layer))
load, boxes = dict(type='mmcondetr.LoadImage'), dict(type='mmdet.LoadAnnotations', with_bbox=True)
resize, pack = dict(type='mmdet.Resize', scale=(224, 224), keep_ratio=True), dict(type='mmdet.PackDetInputs')
train_dataloader = dict(dataset=dict(indices=16, pipeline=[load, boxes, resize, pack]))
val_dataloader = test_dataloader = dict(dataset=dict(indices=16, pipeline=[load, resize, boxes, pack]))
optim_wrapper = dict(optimizer=dict(lr=2e-4))
max_epochs = 200
train_cfg = dict(max_epochs=max_epochs, val_interval=20)
param_scheduler = [dict(type='MultiStepLR', begin=0, end=max_epochs, by_epoch=True, milestones=[170], gamma=0.1)]
default_hooks = dict(checkpoint=dict(interval=20))
