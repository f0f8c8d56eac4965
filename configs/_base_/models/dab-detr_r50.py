# DAB-DETR-R50 as its authors train it (their main.py's defaults): overrides of Conditional DETR-R50.
_base_ = './conditional-detr_r50.py'

prelu = dict(type='mmengine.PReLU')
model = dict(
    positional_encoding=dict(temperature=20),
    encoder=dict(type='mmcondetr.ScaledPositionEncoder', embed_dims=256, layer=dict(dropout=0.0, activation=prelu)),
    decoder=dict(layer=dict(dropout=0.0, activation=prelu), reference_point=dict(type='mmcondetr.AnchorBoxes')),
    bbox_head=dict(loss_cls=dict(loss_weight=1.0)),
    test_cfg=dict(max_per_img=300),
)
