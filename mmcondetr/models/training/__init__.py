"""What exists in training only: groups of object queries, denoising.

A part is one registered class, named in ``model.training_queries``. It says what the decoder is asked in training and
how that is matched; inference, export and everything that looks at a model go on without it.
"""
