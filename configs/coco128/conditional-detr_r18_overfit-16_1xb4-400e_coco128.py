# The first 16 images repeatedly, without flips, from the shapes model's weights: a check that it can learn them.
_base_ = [
    '../_base_/models/conditional-detr_r18_small.py',
    '../_base_/datasets/coco128_detection.py',
    '../_base_/schedules/adamw_from-scratch.py',
    '../_base_/default_runtime.py',
]
load_from = '{{ fileDirname }}/../shapes/conditional-detr_r18_small_shapes-start.safetensors'
model = dict(bbox_head=dict(num_classes=80))
load, boxes = dict(type='mmcondetr.LoadImage'), dict(type='mmdet.LoadAnnotations', with_bbox=True)
resize, pack = dict(type='mmdet.Resize', scale=(320, 320), keep_ratio=True), dict(type='mmdet.PackDetInputs')
train_dataloader = dict(dataset=dict(indices=16, pipeline=[load, boxes, resize, pack]))
val_dataloader = test_dataloader = dict(dataset=dict(indices=16))
train_cfg = dict(max_epochs=400, val_interval=40)
param_scheduler = [dict(type='MultiStepLR', end=400, milestones=[320], gamma=0.1)]
auto_scale_lr = dict(base_batch_size=4)
