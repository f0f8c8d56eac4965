# Blood cells, from scratch. Data: BCCD_ROOT=/path/to/bccd/. From the shapes model: --cfg-options load_from=...pth
_base_ = [
    '../_base_/models/conditional-detr_r18_small.py',
    '../_base_/datasets/bccd_detection.py',
    '../_base_/schedules/adamw_from-scratch.py',
    '../_base_/default_runtime.py',
]
model = dict(num_queries=60, bbox_head=dict(num_classes=3), test_cfg=dict(max_per_img=60))
max_epochs = 60
train_cfg = dict(max_epochs=max_epochs)
param_scheduler = [dict(type='MultiStepLR', begin=0, end=max_epochs, by_epoch=True, milestones=[50], gamma=0.1)]
auto_scale_lr = dict(base_batch_size=8)
