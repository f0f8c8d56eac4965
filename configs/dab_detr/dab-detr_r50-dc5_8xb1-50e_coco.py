_base_ = '../_base_/models/dab-detr_r50-dc5.py'

max_epochs = 50
train_cfg = dict(max_epochs=max_epochs)
param_scheduler = [dict(type='MultiStepLR', begin=0, end=max_epochs, by_epoch=True, milestones=[40], gamma=0.1)]
