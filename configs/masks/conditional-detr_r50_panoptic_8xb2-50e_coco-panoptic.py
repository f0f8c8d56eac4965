# From the authors' detector, which has 80 of the 133 classes. Batch size and learning rate are the detector's.
_base_ = '../_base_/models/conditional-detr_r50_panoptic.py'
load_from = 'https://github.com/DeppMeng/ConditionalDETR/releases/download/v1.0/ConditionalDETR_r50_epoch50.pth'
train_cfg = dict(max_epochs=50)
param_scheduler = [dict(type='MultiStepLR', begin=0, end=50, by_epoch=True, milestones=[40], gamma=0.1)]
