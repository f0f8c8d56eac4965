# mmdet's runtime with this package's hooks.
_base_ = ['mmdet::_base_/default_runtime.py', './hooks.py']
default_hooks = {{_base_.our_hooks}}
