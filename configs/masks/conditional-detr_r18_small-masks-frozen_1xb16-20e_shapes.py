# Masks for the small detector that ships with the project, which is frozen: its boxes do not change.
_base_ = [
    '../_base_/models/conditional-detr_r18_small.py',
    '../_base_/datasets/shapes_masks.py',
    '../_base_/schedules/adamw_from-scratch.py',
    '../_base_/default_runtime.py',
]
load_from = '{{ fileDirname }}/../shapes/conditional-detr_r18_small_shapes-start.safetensors'
model = dict(
    backbone=dict(out_indices=(0, 1, 2)),
    mask_head=dict(type='mmcondetr.MaskHead', embed_dims=128, lateral_channels=(32, 64), freeze_detector=True),
)
optim_wrapper = dict(optimizer=dict(lr=2e-3))  # the mask head is trained from scratch, with GroupNorm
train_cfg = dict(max_epochs=20, val_interval=5)
param_scheduler = [dict(type='MultiStepLR', begin=0, end=20, by_epoch=True, milestones=[15], gamma=0.1)]
