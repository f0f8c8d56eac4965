"""Ends the processes that load images, when a run ends."""

from __future__ import annotations

from mmengine.hooks import Hook
from mmengine.runner import Runner


class ClosingHook(Hook):
    """Ends the loaders' processes (``persistent_workers=True``) as soon as a run does.

    Otherwise they end when Python finds the runner, a cycle of references, to be garbage. The queues by which the
    loader tells its processes to end are garbage then, too, and already closed: it waits five seconds for each.
    """

    def after_run(self, runner: Runner) -> None:
        for loop in (runner._train_loop, runner._val_loop, runner._test_loop):
            loader = getattr(loop, 'dataloader', None)  # a loop that was not needed is still its settings
            processes = getattr(loader, '_iterator', None)
            if hasattr(processes, '_shutdown_workers'):
                processes._shutdown_workers()
                loader._iterator = None  # the next run starts new ones
