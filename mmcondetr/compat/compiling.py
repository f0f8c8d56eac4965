"""``is_compiling``, which is in another module in torch 2.1 and 2.2."""

import torch

if hasattr(torch.compiler, 'is_compiling'):
    from torch.compiler import is_compiling as is_compiling
else:
    from torch._dynamo import is_compiling as is_compiling
