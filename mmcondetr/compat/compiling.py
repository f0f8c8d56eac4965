"""``is_compiling``, which torch 2.1 and 2.2 have in another module."""

import torch

if hasattr(torch.compiler, 'is_compiling'):
    from torch.compiler import is_compiling as is_compiling
else:
    from torch._dynamo import is_compiling as is_compiling
