"""Parts that exist in training only: groups of object queries, and denoising.

Each is one registered class, set as ``model.training_queries``. It provides the decoder's queries in training and
matches their predictions; inference, export and visualisation work without it.
"""
