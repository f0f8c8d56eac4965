"""``_base_ = 'mmcondetr::...'`` in configs, from an installed package and from a source checkout.

mmengine rejects that scope unless its ``MODULE2PACKAGE`` table contains the package, and then finds only the configs of
an installed wheel. Those of mmdet are found without reading its metafiles.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path


def config_root() -> Path:
    """The folder of our configs: inside the installed package, as for mim, or next to it in a source checkout."""
    package = Path(__file__).resolve().parents[1]
    installed = package / '.mim' / 'configs'
    return installed if installed.is_dir() else package.parent / 'configs'


def register_config_scope() -> None:
    """Let configs inherit from ``mmcondetr::some/config.py``, from an installed package and from a source checkout."""
    from mmengine.config.config import Config
    from mmengine.config.utils import MODULE2PACKAGE

    MODULE2PACKAGE['mmcondetr'] = 'mmcondetr'
    original_get_cfg_path = Config._get_cfg_path
    if getattr(original_get_cfg_path, 'knows_mmcondetr', False):
        return

    def get_cfg_path(cfg_path: str, filename: str) -> tuple[str, str | None]:
        # mmengine asks pkg_resources, which finds neither an editable install nor the configs of a checkout.
        scope, mark, path = cfg_path.partition('::')
        if mark and scope == 'mmcondetr' and (config_root() / path).is_file():
            return str(config_root() / path), scope
        # mmengine finds the same after it has read all of mmdet's metafiles, which takes most of a second.
        mmdet = find_spec('mmdet') if scope == 'mmdet' else None
        for folder in mmdet.submodule_search_locations if mmdet else ():
            if (found := Path(folder, '.mim', 'configs', path)).is_file():
                return str(found), scope
        return original_get_cfg_path(cfg_path, filename)

    get_cfg_path.knows_mmcondetr = True
    Config._get_cfg_path = staticmethod(get_cfg_path)
