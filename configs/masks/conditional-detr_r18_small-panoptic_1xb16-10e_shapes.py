# Things and stuff, boxes and masks trained together, from the detector of shapes that ships with the project.
_base_ = [
    '../_base_/models/conditional-detr_r18_small.py',
    '../_base_/datasets/shapes_panoptic.py',
    '../_base_/schedules/adamw_from-scratch.py',
    '../_base_/default_runtime.py',
]
load_from = '{{ fileDirname }}/../shapes/conditional-detr_r18_small_shapes-start.safetensors'
panoptic = dict(num_classes=9, num_things=6, score_threshold=0.4)
masks = dict(type='mmcondetr.MaskHead', embed_dims=128, lateral_channels=(32, 64), panoptic=panoptic)
model = dict(backbone=dict(out_indices=(0, 1, 2)), bbox_head=dict(num_classes=9), mask_head=masks)
optim_wrapper = dict(paramwise_cfg=dict(custom_keys={'mask_head': dict(lr_mult=5.0)}))  # it starts from nothing
train_cfg = dict(max_epochs=10, val_interval=5)
param_scheduler = [dict(type='MultiStepLR', begin=0, end=10, by_epoch=True, milestones=[8], gamma=0.1)]
