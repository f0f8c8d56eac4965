# Another backbone: mmdet's Swin-T, from its authors' ImageNet weights. Any of mmdet's works: the neck's in_channels
# must be those of its last stage, whose stride is 32. Not trained here.
_base_ = '../conditional_detr/conditional-detr_r50_8xb2-50e_coco.py'

weights = 'https://github.com/SwinTransformer/storage/releases/download/v1.0.0/swin_tiny_patch4_window7_224.pth'
backbone = dict(_delete_=True, type='mmdet.SwinTransformer', embed_dims=96, depths=(2, 2, 6, 2))
backbone.update(num_heads=(3, 6, 12, 24), window_size=7, drop_path_rate=0.2, out_indices=(3,), convert_weights=True)
backbone.update(init_cfg=dict(type='Pretrained', checkpoint=weights))
model = dict(backbone=backbone, neck=dict(in_channels=[768]))
