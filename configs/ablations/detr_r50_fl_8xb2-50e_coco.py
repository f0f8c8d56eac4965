_base_ = './detr_r50_or-fl_8xb2-50e_coco.py'

model = dict(decoder=dict(reference_point=dict(type='mmcondetr.AdditiveZeroReferencePoint')))
