"""Tables whose cells are as they were given; sections of a page between two markers."""

import pytest

from mmcondetr.errors import UserError
from mmcondetr.markdown import replace_section, table

BEGIN, END = '<!-- part: begin -->', '<!-- part: end -->'


def test_cells_stand_as_given():
    lines = table(['name', 'AP'], [['r50', '0.10'], ['r101-dc5', 7], ('', None)]).splitlines()
    assert lines == ['| name | AP |', '| --- | --- |', '| r50 | 0.10 |', '| r101-dc5 | 7 |', '|  | None |']


@pytest.mark.parametrize(
    'text', ['no markers', f'{END}\n{BEGIN}', f'{BEGIN}{END}{BEGIN}{END}', f'{BEGIN} {END} {END}', BEGIN]
)
def test_a_page_without_its_markers_once_and_in_order_is_named(text):
    with pytest.raises(UserError, match=r"'some/README\.md' needs the line .*begin.* and after it .*end"):
        replace_section(text, BEGIN, END, 'table', 'some/README.md')


def test_replacing_a_section_leaves_the_rest():
    text = f'before\n{BEGIN}\nold\n{END}\nafter\n'
    assert replace_section(text, BEGIN, END, r'new \1', 'a.md') == text.replace('old', r'new \1')


def test_sections_of_one_page_are_told_apart():
    one, two = (f'<!-- {name} -->\nold\n<!-- end {name} -->\n' for name in ('one', 'two'))
    replaced = replace_section(one + two, '<!-- two -->', '<!-- end two -->', 'new', 'a.md')
    assert replaced == one + two.replace('old', 'new')
