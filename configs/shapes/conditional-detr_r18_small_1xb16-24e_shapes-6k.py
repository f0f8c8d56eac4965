# The recipe of the pretrained checkpoint that ships with the package: the 24-epoch model on three times the images.
_base_ = './conditional-detr_r18_small_1xb16-24e_shapes.py'

data_root = '{{$SHAPES_ROOT:data/shapes-6k/}}'
train_dataloader = dict(dataset=dict(data_root=data_root, generate=dict(num_train=6000)))
val_dataloader = dict(dataset=dict(data_root=data_root, generate=dict(num_train=6000)))
test_dataloader = dict(dataset=dict(data_root=data_root, generate=dict(num_train=6000)))
val_evaluator = dict(ann_file=data_root + 'annotations/val.json')
test_evaluator = dict(ann_file=data_root + 'annotations/val.json')
