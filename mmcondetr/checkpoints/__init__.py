"""Checkpoints of every public Conditional DETR: detecting their format, renaming, checking, loading and writing.

files.py      one file: read without executing code
rules.py      tables of each family's tensor names; dab_rules.py and detr_rules.py have those of the other detectors
renaming.py   applies these tables, in both directions
classes.py    which row of a class head belongs to which class
source.py     metadata of a file
adapting.py   the detector's load hook: converts names and classes, accounts for every tensor
reading.py    loaders for mmengine: files, folders and URLs
http_requests.py   requests that end, however slow or talkative the server is
download.py   URLs: resumed, verified, moved to the final name only when complete
conversion.py writes a checkpoint in another family's format
published.py  weights that others publish for our configs
huggingface.py   the two files beside Hugging Face's weights
work_dirs.py     the best and the last checkpoint of a run
query_groups.py, label_embeddings.py   fit what exists in training only to the model
coco_panoptic_classes.py   COCO's stuff, for classes.py
"""
