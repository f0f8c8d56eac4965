_base_ = './detr_r50_additive_8xb2-50e_coco.py'

model = dict(decoder=dict(layer=dict(type='mmcondetr.FirstPositionDecoderLayer')))
