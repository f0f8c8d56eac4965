# 128 images of COCO, trained and tested on the same ones, from scratch. Data: COCO128_ROOT=/path/to/coco128/
_base_ = [
    '../_base_/models/conditional-detr_r50_from-scratch.py',
    '../_base_/datasets/coco128_detection.py',
    '../_base_/schedules/adamw_from-scratch.py',
    '../_base_/default_runtime.py',
]
max_epochs = 100
optim_wrapper = dict(optimizer=dict(lr=1e-4))
train_cfg = dict(max_epochs=max_epochs, val_interval=10)
param_scheduler = [dict(type='MultiStepLR', begin=0, end=max_epochs, by_epoch=True, milestones=[80], gamma=0.1)]
auto_scale_lr = dict(base_batch_size=4)
