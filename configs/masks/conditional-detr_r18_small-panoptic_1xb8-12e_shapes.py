# Things and stuff, boxes and masks trained together, from the frozen recipe's result: a detector with a trained head.
_base_ = [
    '../_base_/models/conditional-detr_r18_small.py',
    '../_base_/datasets/shapes_panoptic.py',
    '../_base_/schedules/adamw_from-scratch.py',
    '../_base_/default_runtime.py',
]
load_from = 'work_dirs/conditional-detr_r18_small-masks-frozen_1xb16-20e_shapes/epoch_20.pth'
merging = dict(num_classes=9, num_things=6)
masks = dict(type='mmcondetr.MaskHead', embed_dims=128, lateral_channels=(32, 64), panoptic=merging)
model = dict(backbone=dict(out_indices=(0, 1, 2)), bbox_head=dict(num_classes=9), mask_head=masks)
train_dataloader, auto_scale_lr = dict(batch_size=8), dict(base_batch_size=8)
parts = dict.fromkeys(('class_embed', 'mask_head'), dict(lr_mult=4.0))  # stuff is new to them
optim_wrapper = dict(optimizer=dict(lr=1e-4), paramwise_cfg=dict(custom_keys=parts))
train_cfg = dict(max_epochs=12, val_interval=4)
param_scheduler = [dict(type='MultiStepLR', begin=0, end=12, by_epoch=True, milestones=[10], gamma=0.1)]
