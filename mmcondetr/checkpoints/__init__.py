"""Checkpoints of every public Conditional DETR: recognised, renamed, checked, loaded and written.

files.py      one file: read without running code, written so that a kill leaves the old or the new one
rules.py      how each family names our tensors: tables
renaming.py   the one engine that applies them, both ways
classes.py    which row of a head belongs to which class
source.py     what a file says about itself
adapting.py   the detector's load hook: the names, the classes, every tensor accounted for
reading.py    the loaders that mmengine calls, for files, folders and URLs
download.py   URLs: resumed, verified, never half a file under the final name
conversion.py writing a checkpoint in another family's format
"""
