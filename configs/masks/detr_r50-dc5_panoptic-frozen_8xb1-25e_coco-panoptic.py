_base_ = './detr_r50_panoptic-frozen_8xb2-25e_coco-panoptic.py'
load_from = 'https://dl.fbaipublicfiles.com/detr/detr-r50-dc5-panoptic-da08f1b1.pth'
model = dict(backbone=dict(type='mmcondetr.ResNetDC5'))
train_dataloader = dict(batch_size=1)
val_dataloader = dict(batch_size=1)
test_dataloader = dict(batch_size=1)
auto_scale_lr = dict(base_batch_size=8)
