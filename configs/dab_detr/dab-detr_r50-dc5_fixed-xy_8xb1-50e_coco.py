_base_ = './dab-detr_r50-dc5_8xb1-50e_coco.py'

# Without weight decay, which would pull the fixed centres to the middle of the image.
model = dict(decoder=dict(reference_point=dict(fixed_xy=True)))
optim_wrapper = dict(paramwise_cfg=dict(custom_keys=dict(query_embedding=dict(decay_mult=0.0))))
