# Any data set in COCO's format, at a size for one machine. Configs based on it define the data's location, classes and
# pipelines: the data sets beside this file, and the configs written by `mmcondetr init`.
dataset_type = 'mmcondetr.CocoDataset'

train_dataloader = dict(
    batch_size=8,
    num_workers=2,
    persistent_workers=True,
    sampler=dict(type='mmcondetr.EpochSampler', shuffle=True),
    batch_sampler=None,
    dataset=dict(type=dataset_type, data_prefix=dict(img='')),
)
# Batches of one, so that an image's scores do not depend on padding to its neighbours' size.
val_dataloader = dict(
    batch_size=1,
    num_workers=2,
    persistent_workers=True,
    drop_last=False,
    sampler=dict(type='mmengine.DefaultSampler', shuffle=False),
    dataset=dict(type=dataset_type, data_prefix=dict(img=''), test_mode=True),
)
test_dataloader = val_dataloader

val_evaluator = dict(type='mmcondetr.CocoMetric', metric='bbox')
test_evaluator = val_evaluator
