_base_ = '../conditional_detr/conditional-detr_r50_8xb2-50e_coco.py'

model = dict(decoder=dict(spatial_query=dict(transform=dict(type='mmcondetr.IdentityTransform'))))
