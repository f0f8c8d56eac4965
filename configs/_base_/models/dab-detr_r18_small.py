# The small DAB-DETR: width, depth and data of the small Conditional DETR.
_base_ = './conditional-detr_r18_small.py'

prelu = dict(type='mmengine.PReLU')
model = dict(
    positional_encoding=dict(temperature=20),
    encoder=dict(type='mmcondetr.ScaledPositionEncoder', embed_dims=128, layer=dict(activation=prelu)),
    decoder=dict(layer=dict(activation=prelu), reference_point=dict(type='mmcondetr.AnchorBoxes')),
    bbox_head=dict(loss_cls=dict(loss_weight=1.0)),
)
