# A control: one set of queries, in which every object is matched 11 times.
_base_ = './conditional-detr_r50_8xb2-12e_coco.py'

model = dict(training_queries=dict(type='mmcondetr.OneToMany', num_copies=11))
