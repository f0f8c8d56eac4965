_base_ = '../_base_/models/conditional-detr_r101-dc5.py'

max_epochs = 75
train_cfg = dict(max_epochs=max_epochs)
param_scheduler = [dict(type='MultiStepLR', begin=0, end=max_epochs, by_epoch=True, milestones=[60], gamma=0.1)]
