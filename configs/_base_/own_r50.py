# For one's own data on a GPU: the paper's R50 from its authors' COCO weights; COCO's classes keep their rows.
# Half of the paper's learning rate, for a quarter of its batch; not measured here.
_base_ = './models/conditional-detr_r50.py'

load_from = 'https://github.com/DeppMeng/ConditionalDETR/releases/download/v1.0/ConditionalDETR_r50_epoch50.pth'
train_dataloader = dict(dataset=dict(data_prefix=dict(_delete_=True, img='')))
val_dataloader = dict(dataset=dict(data_prefix=dict(_delete_=True, img='')))
test_dataloader = val_dataloader
optim_wrapper = dict(optimizer=dict(lr=5e-5))
default_hooks = dict(checkpoint=dict(save_best='coco/bbox_mAP', rule='greater'), logger=dict(interval=10))
