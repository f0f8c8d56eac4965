"""Tables whose cells are unchanged; sections of a page between two markers."""

from pathlib import Path

import pytest

from mmcondetr.errors import UserError
from mmcondetr.markdown import replace_section, table, wrap

ROOT = Path(__file__).parents[2]
BEGIN, END = '<!-- part: begin -->', '<!-- part: end -->'


def test_cells_stand_as_given():
    lines = table(['name', 'AP'], [['r50', '0.10'], ['r101-dc5', 7], ('', None)]).splitlines()
    assert lines == ['| name | AP |', '| --- | --- |', '| r50 | 0.10 |', '| r101-dc5 | 7 |', '|  | None |']


@pytest.mark.parametrize(
    'text', ['no markers', f'{END}\n{BEGIN}', f'{BEGIN}{END}{BEGIN}{END}', f'{BEGIN} {END} {END}', BEGIN]
)
def test_a_page_without_its_markers_once_and_in_order_is_named(text):
    with pytest.raises(UserError, match=r"'some/README\.md' must contain the line .*begin.* followed by .*end"):
        replace_section(text, BEGIN, END, 'table', 'some/README.md')


def test_replacing_a_section_leaves_the_rest():
    text = f'before\n{BEGIN}\nold\n{END}\nafter\n'
    assert replace_section(text, BEGIN, END, r'new \1', 'a.md') == text.replace('old', r'new \1')


def test_sections_of_one_page_are_told_apart():
    one, two = (f'<!-- {name} -->\nold\n<!-- end {name} -->\n' for name in ('one', 'two'))
    replaced = replace_section(one + two, '<!-- two -->', '<!-- end two -->', 'new', 'a.md')
    assert replaced == one + two.replace('old', 'new')


def test_generated_prose_is_wrapped_and_tables_are_not():
    row, prose, address = f'| {"cell " * 40}|', 'word ' * 60, f'https://{"a" * 150}'
    lines = wrap(f'{row}\n{prose}\n{address}\nshort').split('\n')
    assert lines[0] == row and lines[-2:] == [address, 'short']
    assert len(lines) == 6 and all(len(line) <= 120 for line in lines[1:4])


def test_lines_of_the_documentation_are_at_most_120_wide():
    """Tables keep a row a line, and an address cannot be broken."""
    pages = [path for folder in ('', 'docs', 'configs', 'benchmarks') for path in (ROOT / folder).glob('*.md')]
    pages += [path for folder in ('docs', 'configs') for path in (ROOT / folder).glob('*/*.md')]
    assert len(pages) > 15
    wide = [
        f'{path.relative_to(ROOT)}:{number}'
        for path in pages
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if len(line) > 120 and not line.lstrip().startswith('|') and max(map(len, line.split())) < 100
    ]
    assert not wide
