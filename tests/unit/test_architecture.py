"""The allowed imports in docs/architecture.md, no circular imports, unique file names, short model files."""

import ast
import re
from collections import Counter
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[2] / 'mmcondetr'
MODULES = {
    '.'.join(('mmcondetr', *path.relative_to(PACKAGE).with_suffix('').parts)).removesuffix('.__init__'): path
    for path in sorted(PACKAGE.rglob('*.py'))
    if '.mim' not in path.parts
}
ENTRANCES = {'mmcondetr', 'mmcondetr.__main__'}  # set up the other packages, so they may import anything


def package_of(module: str) -> str:
    return module.split('.')[1] if '.' in module else ''


def imports(module: str) -> set[str]:
    """Our modules that a module imports, including inside functions and under TYPE_CHECKING."""
    found = set()
    for node in ast.walk(ast.parse(MODULES[module].read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f'{module}: imports are absolute'
            names = {f'{node.module}.{alias.name}' for alias in node.names}
            found |= {name if name in MODULES else node.module for name in names}
    return {name for name in found if name in MODULES and name != 'mmcondetr'}


def allowed() -> dict[str, set[str]]:
    """Package -> packages it may import from: the table 'Packages' in docs/architecture.md, bottom-up."""
    text = (PACKAGE.parent / 'docs' / 'architecture.md').read_text()
    rows = re.findall(r'^\| `(\w+)/?` \| ([^|]*) \| ([^|]*) \|$', text, re.M)
    return {name: set(re.findall(r'\w+', below.replace('—', ''))) for name, _, below in rows}


def test_every_package_is_in_the_table():
    assert {package_of(module) for module in MODULES if module not in ENTRANCES} == set(allowed())


def test_packages_import_from_below_only():
    table = allowed()
    order = list(table)
    for name, below in table.items():
        assert all(order.index(other) < order.index(name) for other in below), name
    wrong = [
        f'{module} -> {other}'
        for module in MODULES
        if module not in ENTRANCES
        for other in imports(module)
        if package_of(other) != package_of(module) and package_of(other) not in table[package_of(module)]
    ]
    assert not wrong


def test_the_table_allows_no_more_than_is_used():
    used: dict[str, set[str]] = {name: set() for name in allowed()}
    for module in MODULES:
        if module not in ENTRANCES:
            used[package_of(module)] |= {package_of(other) for other in imports(module)} - {package_of(module)}
    assert used == allowed()


def test_no_circular_imports():
    arrows = {module: imports(module) - {module} for module in MODULES}
    for package in [module for module in MODULES if MODULES[module].name == '__init__.py']:
        # Modules inside a package do not import from its __init__.
        inside = [module for module in MODULES if module.startswith(f'{package}.')]
        if package not in ENTRANCES:
            assert not [module for module in inside if package in arrows[module]], package
    finished: set[str] = set()

    def visit(module: str, path: tuple[str, ...]) -> None:
        assert module not in path, ' -> '.join((*path[path.index(module) :], module))
        if module not in finished:
            for other in arrows[module]:
                visit(other, (*path, module))
            finished.add(module)

    for module in MODULES:
        visit(module, ())


def test_file_names_are_unique():
    """Except commands, which are named after the function they call."""
    counts = Counter(path.name for path in MODULES.values() if path.name != '__init__.py' and path.parent.name != 'cli')
    assert not [name for name, count in counts.items() if count > 1]


def test_what_is_printed_cannot_steer_the_terminal():
    """`mmcondetr config` alone prints as it is: a config of the user's, which may be kept in a file."""
    printing = {
        module
        for module, path in MODULES.items()
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == 'print'
    }
    assert printing == {'mmcondetr.terminal', 'mmcondetr.cli.config'}


@pytest.mark.parametrize('folder', ['models', 'layers'])
def test_no_file_of_the_model_is_long(folder):
    long = {path.name: len(path.read_text().splitlines()) for path in (PACKAGE / folder).rglob('*.py')}
    assert not {name: lines for name, lines in long.items() if lines > 200}


def test_every_layer_has_a_test_file_of_its_name():
    layers = {path.stem for path in (PACKAGE / 'layers').glob('[!_]*.py')}
    assert layers and not {name for name in layers if not (Path(__file__).parent / f'test_{name}.py').exists()}
