"""Layers that know nothing of the paper: what PyTorch has, quicker or in less memory, with the same results."""
