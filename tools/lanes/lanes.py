"""The sets of packages that are tested, from the oldest to the newest."""

from __future__ import annotations

from dataclasses import dataclass, field

QUICK = (
    'tests/unit/test_compat.py',
    *(f'tests/unit/test_{part}.py' for part in ('backbone', 'attention', 'detector', 'head', 'matching')),
    *(f'tests/unit/test_{part}.py' for part in ('files', 'adapting', 'checkpoint_hook', 'samplers', 'annotations')),
    *(
        f'tests/unit/test_{part}.py'
        for part in ('safe_loading', 'torch_archive', 'checkpoints_damage', 'stored_configs')
    ),
    *(f'tests/unit/test_{part}.py' for part in ('coco', 'coco_metric', 'optimize', 'predictor', 'record')),
    'tests/integration/test_amp.py',
)
"""The default tests of a lane: those that touch other packages, and one training from a command line."""

TEST_TOOLS = ('pytest>=7',)


@dataclass(frozen=True)
class Lane:
    """One set of packages.

    Attributes:
        name: of the lane and its result file.
        what: its purpose; the first cell of its row in docs/compatibility.md.
        python: the minor version, '3.11'.
        installs: arguments of ``pip install``, one call each, in this order, in a fresh environment;
            ``.`` is the source.
        tests: arguments of pytest.
        environment: variables for pip (such as those that choose what mmcv builds).
    """

    name: str
    what: str
    python: str
    installs: tuple[tuple[str, ...], ...]
    tests: tuple[str, ...] = QUICK
    environment: dict[str, str] = field(default_factory=dict)


PINNED = (
    ('--upgrade', 'setuptools==79.0.1'),
    ('torch==2.13.0',),
    ('--requirement', 'requirements.txt'),
    ('--no-deps', '--no-build-isolation', '--editable', '.'),
)

LANES = {
    lane.name: lane
    for lane in (
        Lane(
            'oldest',
            'the floor of every range, and no transformers',
            '3.10',
            (
                ('setuptools==65.5.1', 'wheel'),
                ('torch==2.1.2', 'numpy==1.22.4'),
                (
                    *('mmdet==3.3.0', 'mmengine==0.10.4', 'mmcv-lite==2.0.0', 'numpy==1.22.4', 'scipy==1.8.1'),
                    *('opencv-python==4.6.0.66', 'matplotlib==3.6.3', 'pillow==9.5.0', 'pycocotools==2.0.7'),
                    *('safetensors==0.4.0', 'wrapt==1.15.0', 'rich==13.0.0', 'msgspec==0.18.0', 'filelock==3.12.0'),
                ),
                ('numpy==1.22.4', '--no-build-isolation', '--editable', '.[lite]', *TEST_TOOLS),
            ),
        ),
        Lane(
            'pinned',
            'the tested set: `make test`, requirements.txt',
            '3.11',
            (*PINNED, ('--requirement', 'requirements-test.txt')),
        ),
        Lane('py312', 'the newest of everything', '3.12', (('--editable', '.[lite,test]'),)),
        Lane('py313', 'the newest of everything', '3.13', (('--editable', '.[lite,test]'),)),
        Lane(
            'onedl',
            'the maintained fork of mmdet, mmengine and mmcv (without compiled ops)',
            '3.11',
            (('torch==2.13.0',), ('--editable', '.[onedl]', *TEST_TOOLS)),
        ),
        Lane(
            'full-mmcv',
            'the full mmcv, compiled from source',
            '3.11',
            (
                ('--upgrade', 'setuptools==79.0.1', 'wheel', 'ninja', 'psutil'),
                ('torch==2.13.0', 'numpy==2.4.6'),
                ('--no-build-isolation', 'mmcv==2.1.0'),
                ('--no-build-isolation', '--editable', '.[full]', *TEST_TOOLS),
            ),
            tests=(*QUICK, 'tests/parity/test_mmcv_ops.py'),
            environment={'MMCV_WITH_OPS': '1', 'MAX_JOBS': '2'},
        ),
        Lane(
            'transformers-oldest',
            "Hugging Face's models beside ours, oldest",
            '3.11',
            (*PINNED, ('transformers==4.57.0', *TEST_TOOLS)),
            tests=('tests/parity/test_transformers.py', 'tests/unit/test_conversion.py'),
        ),
        Lane(
            'transformers-newest',
            "Hugging Face's models beside ours, newest",
            '3.11',
            (*PINNED, ('transformers', *TEST_TOOLS)),
            tests=('tests/parity/test_transformers.py', 'tests/unit/test_conversion.py'),
        ),
    )
}
