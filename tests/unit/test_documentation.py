"""References in the documentation exist: relative links, paths of the repository, and modules in docstrings."""

import ast
import os
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SKIPPED = {'.git', '.venv', '.mim', 'build', 'dist', 'node_modules', 'outputs', 'work_dirs'}
HISTORY = {'CHANGELOG.md'}  # names files as they were
FOLDERS = 'mmcondetr|tools|configs|docs|tests|benchmarks|examples'
LINK = re.compile(r'\]\(([^)\s]+)\)|(?:src|href)="([^"]+)"')
PATH = re.compile(rf'(?<![\w./-])((?:{FOLDERS})/[\w./*{{}},-]+\.(?:py|md|yml|json|svg|png|html|css|js|safetensors))\b')
MODULE = re.compile(r'(?<![\w./*-])((?:[a-z_]+/)*[a-z_]+\.py)\b')
CODE = re.compile(r'^```.*?^```', re.M | re.S)
#: Examples, and files that the reader's commands write.
EXAMPLES = {
    'benchmarks/cpu.json',
    'tests/unit/test_X.py',
    'configs/ablations/conditional-detr_r50_head-transform_8xb2-50e_coco.py',  # docs/adding-a-variant.md writes it
}
#: Examples, and modules of other projects.
FOREIGN = {'my_config.py', 'some/config.py'}


def files(suffix: str, *folders: str) -> list[Path]:
    found = []
    for start in folders or ('.',):
        for folder, below, names in os.walk(ROOT / start):
            below[:] = [name for name in below if name not in SKIPPED]
            found += [Path(folder, name) for name in names if name.endswith(suffix)]
    return sorted(found)


PAGES = files('.md')
SOURCES = files('.py', 'mmcondetr', 'tools')
NAMES = {path.name for path in files('.py')}


def exists(reference: str) -> bool:
    """Whether a path, which may be a pattern such as configs/*/README.md or have alternatives {a,b}, names a file."""
    alternatives = re.search(r'\{([^}]*)\}', reference)
    if alternatives:
        return all(exists(reference.replace(alternatives.group(), each)) for each in alternatives.group(1).split(','))
    return reference in EXAMPLES or any(ROOT.glob(reference))


@pytest.mark.parametrize('page', PAGES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_relative_links_exist(page):
    text = CODE.sub('', page.read_text(encoding='utf-8'))
    links = [next(filter(None, groups)) for groups in LINK.findall(text)]
    local = [link.partition('#')[0] for link in links if not re.match(r'[a-z]+:', link)]
    assert not [link for link in local if link and not (page.parent / link).exists()]


@pytest.mark.parametrize(
    'page', [page for page in PAGES if page.name not in HISTORY], ids=lambda path: path.relative_to(ROOT).as_posix()
)
def test_paths_in_pages_exist(page):
    missing = [path for path in PATH.findall(page.read_text(encoding='utf-8')) if not exists(path)]
    assert not missing


def test_paths_and_modules_in_docstrings_and_comments_exist():
    """A name without a folder is found anywhere, one with a folder below the package, its neighbours or the root."""
    missing = []
    for source in SOURCES:
        text = source.read_text(encoding='utf-8')
        prose = [
            ast.get_docstring(node) or ''
            for node in ast.walk(ast.parse(text))
            if hasattr(node, 'body')
            and isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
        ]
        prose += re.findall(r'(?:^|  )# (.*)$', text, re.M)
        for reference in MODULE.findall('\n'.join(prose)):
            found = reference in FOREIGN or ('/' not in reference and reference in NAMES)
            if '/' in reference and not found:
                bases = (ROOT, ROOT / 'mmcondetr', ROOT / 'mmcondetr' / 'models', source.parent)
                found = any((base / reference).exists() for base in bases)
            if not found:
                missing.append(f'{source.relative_to(ROOT)}: {reference}')
    assert not missing, '\n'.join(missing)


def test_the_scan_finds_a_missing_file():
    assert PATH.findall('see `mmcondetr/models/gone.py`, tools/x/gone.md.') == [
        'mmcondetr/models/gone.py',
        'tools/x/gone.md',
    ]
    assert not exists('mmcondetr/models/gone.py') and exists('configs/*/README.md')
    assert MODULE.findall('gone.py and models/gone.py') == ['gone.py', 'models/gone.py']
