# For comparison, and for DETR's checkpoint. DETR first trains the boxes of things and stuff for 300 epochs.
_base_ = '../_base_/models/detr_r50_panoptic.py'
load_from = 'https://dl.fbaipublicfiles.com/detr/detr-r50-panoptic-00ce5173.pth'
train_cfg = dict(max_epochs=25)
param_scheduler = [dict(type='MultiStepLR', begin=0, end=25, by_epoch=True, milestones=[15], gamma=0.1)]
