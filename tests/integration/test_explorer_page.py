"""The explorer page in a real browser: it opens without an error; clicks, keys and sliders change what is shown."""

import json
import shutil

import numpy as np
import pytest
from tiny_files import write_model
from tiny_model import tiny_config

from mmcondetr.inference import load_detector
from mmcondetr.visualization import write_explorer

webdriver = pytest.importorskip('selenium.webdriver', reason='needs selenium (pip install "mmcondetr[test]")')

BROWSER = shutil.which('chromium') or shutil.which('chromium-browser') or shutil.which('google-chrome')
DRIVER = shutil.which('chromedriver')
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not (BROWSER and DRIVER),
        reason='needs Chromium and chromedriver (Debian: apt-get install chromium chromium-driver)',
    ),
]
FLAGS = (
    '--headless',
    '--no-sandbox',
    '--disable-gpu',
    '--disable-quic',
    '--no-first-run',
    '--disable-dev-shm-usage',
    '--disable-background-networking',
    '--disable-component-update',
    '--disable-sync',
)


@pytest.fixture(scope='module')
def page(tmp_path_factory):
    """The page of a picture with four detections."""
    folder = tmp_path_factory.mktemp('page')
    model = load_detector(*write_model(folder, tiny_config()))
    pixels = np.random.default_rng(0).integers(0, 255, (60, 90, 3), dtype=np.uint8)
    write_explorer(model, pixels, folder / 'explorer.html', score_threshold=0, count=4, title='<b>title</b>')
    return folder / 'explorer.html'


@pytest.fixture(scope='module')
def browser(tmp_path_factory):
    from selenium.webdriver.chrome.options import Options
    from selenium.webdriver.chrome.service import Service

    options = Options()
    options.binary_location = BROWSER
    for flag in (*FLAGS, f'--user-data-dir={tmp_path_factory.mktemp("profile")}'):
        options.add_argument(flag)
    options.set_capability('goog:loggingPrefs', {'browser': 'ALL', 'performance': 'ALL'})
    driver = webdriver.Chrome(options=options, service=Service(DRIVER))
    yield driver
    driver.quit()


@pytest.fixture
def opened(browser, page):
    return open_page(browser, page, 1300, 900)


def open_page(browser, page, width, height):
    from selenium.webdriver.support.ui import WebDriverWait

    metrics = dict(width=width, height=height, deviceScaleFactor=1, mobile=width < 500)
    browser.execute_cdp_cmd('Emulation.setDeviceMetricsOverride', metrics)
    browser.get(page.as_uri())
    WebDriverWait(browser, 60).until(lambda driver: driver.execute_script('return document.body.dataset.ready'))
    return browser


def overlay(browser) -> str:
    return browser.execute_script('return document.getElementById("overlay").toDataURL()')


def status(browser) -> str:
    return browser.execute_script('return document.getElementById("status").textContent')


def press(browser, *keys):
    from selenium.webdriver.common.action_chains import ActionChains

    ActionChains(browser).send_keys(*keys).perform()


def click(browser, selector, index=0):
    browser.execute_script('document.querySelectorAll(arguments[0])[arguments[1]].click()', selector, index)


def test_it_opens_without_an_error_and_loads_nothing(opened):
    assert not [entry for entry in opened.get_log('browser') if entry['level'] in ('SEVERE', 'WARNING')]
    assert opened.find_element('id', 'title').text == '<b>title</b>'
    requests = [json.loads(entry['message'])['message'] for entry in opened.get_log('performance')]
    sent = [one['params'] for one in requests if one['method'] == 'Network.requestWillBeSent']
    ours = {one['request']['url'].split(':')[0] for one in sent if one['documentURL'].endswith('explorer.html')}
    assert 'file' in ours and ours <= {'file', 'data'}


def test_clicking_a_detection_changes_the_overlay(opened):
    from selenium.webdriver.common.action_chains import ActionChains

    before, first = overlay(opened), status(opened)
    found = opened.find_elements('css selector', '#boxes button')
    assert len(found) == 4
    # the box that lies on top at its own centre is reached with a real click
    top = opened.execute_script("""
        return [...document.querySelectorAll('#boxes button[aria-pressed="false"]')].find((button) => {
          const frame = button.getBoundingClientRect();
          return document.elementFromPoint(frame.x + frame.width / 2, frame.y + frame.height / 2) === button; })""")
    assert top is not None
    ActionChains(opened).move_to_element(top).click().perform()
    assert top.get_attribute('aria-pressed') == 'true'
    assert overlay(opened) != before and status(opened) != first


def test_covered_boxes_are_reached_by_clicking_again(opened):
    from selenium.webdriver.common.actions.action_builder import ActionBuilder

    # a point where boxes lie above each other, and how many
    covered = opened.execute_script("""
        const stage = document.getElementById('stage').getBoundingClientRect();
        let best = [0, 0, 0];
        for (let x = stage.left + 5; x < stage.right; x += 10) for (let y = stage.top + 5; y < stage.bottom; y += 10) {
          const here = document.elementsFromPoint(x, y).filter((one) => one.parentElement?.id === 'boxes').length;
          if (here > best[2]) best = [x, y, here];
        }
        return best""")
    assert covered[2] > 1
    seen = set()
    for _ in range(covered[2]):
        mouse = ActionBuilder(opened)
        mouse.pointer_action.move_to_location(int(covered[0]), int(covered[1])).click()
        mouse.perform()
        seen.add(status(opened))
    assert len(seen) == covered[2]


def test_the_score_slider_shows_fewer_and_more(opened):
    def shown():
        return opened.execute_script(
            'return [...document.querySelectorAll("#boxes button")].filter((one) => !one.hidden).length'
        )

    def slide(value):
        opened.execute_script(
            """const slider = document.getElementById('threshold'); slider.value = arguments[0];
               slider.dispatchEvent(new Event('input'));""",
            value,
        )

    assert shown() == 4 and opened.find_element('id', 'shown').text == '4 of 4'
    slide(100)
    assert shown() == 1 and opened.find_element('id', 'shown').text == '0 of 4'  # the chosen one stays
    slide(0)
    assert shown() == 4
    press(opened, ']')
    assert opened.find_element('id', 'threshold-value').text == '0.05'


def test_layers_heads_and_kinds_change_the_overlay(opened):
    shown = {overlay(opened)}
    for selector, index in (
        ('#kinds button', 1),
        ('#kinds button', 2),
        ('#heads button', 2),
        ('#layers button', 0),
        ('#thumbnails button', 8),
    ):
        click(opened, selector, index)
        shown.add(overlay(opened))
    assert len(shown) == 6
    assert 'content · head 2 · layer 0' in status(opened)
    assert 'positions are added' in opened.find_element('id', 'kind-note').text


def test_the_box_is_refined_layer_by_layer(opened):
    def box():
        return opened.execute_script(
            'const box = document.querySelector("svg .chosen"); '
            'return ["x", "y", "width", "height"].map((name) => box.getAttribute(name))'
        )

    boxes = set()
    for layer in range(3):
        click(opened, '#layers button', layer)
        boxes.add(tuple(box()))
    assert len(boxes) == 3
    assert opened.execute_script('return document.querySelectorAll("svg .trace").length') == 3


def test_keys(opened):
    from selenium.webdriver.common.keys import Keys

    def value(name):
        return opened.execute_script(f'return document.getElementById("{name}").value')

    press(opened, 'c')
    assert 'content' in status(opened)
    press(opened, Keys.ARROW_RIGHT, Keys.ARROW_RIGHT)
    assert 'head 1' in status(opened)
    press(opened, Keys.ARROW_DOWN)
    assert 'layer 1' in status(opened) and value('layer') == '1'
    press(opened, '+')
    assert value('opacity') == '70'
    before = status(opened)
    press(opened, 'n')
    assert status(opened) != before
    press(opened, 'p')
    assert status(opened) == before
    press(opened, '?')
    assert opened.find_element('id', 'help').is_displayed()
    press(opened, Keys.ESCAPE)
    assert not opened.find_element('id', 'help').is_displayed()
    press(opened, 'o')
    assert 'plain' in opened.find_element('id', 'stage').get_attribute('class')


def test_detections_are_reached_with_the_tab_key(opened):
    from selenium.webdriver.common.keys import Keys

    seen = set()
    for _ in range(6):
        press(opened, Keys.TAB)
        active = opened.switch_to.active_element
        if active.find_element('xpath', '..').get_attribute('id') == 'boxes':
            seen.add(active.get_attribute('aria-label'))
            outline = opened.execute_script('return getComputedStyle(document.activeElement).outlineStyle')
            assert outline == 'solid'
    assert len(seen) == 4


def test_opacity_and_scale(opened):
    before = overlay(opened)
    opened.execute_script("""const slider = document.getElementById('opacity'); slider.value = 30;
                             slider.dispatchEvent(new Event('input'));""")
    style = opened.execute_script('return document.getElementById("overlay").style.opacity')
    assert float(style) == pytest.approx(0.3) and overlay(opened) == before
    largest = opened.find_element('id', 'scale-max').text
    click(opened, '#shared')
    assert opened.find_element('id', 'scale-max').text != largest and overlay(opened) != before


@pytest.mark.parametrize('width, height', [(390, 844), (1300, 900)])
def test_the_page_fits_the_screen(browser, page, width, height):
    open_page(browser, page, width, height)
    wide = browser.execute_script('return document.documentElement.scrollWidth')
    stage = browser.execute_script('return document.getElementById("stage").getBoundingClientRect().toJSON()')
    assert wide <= width
    assert 0 <= stage['left'] and stage['right'] <= width and stage['bottom'] <= height
    assert stage['width'] / stage['height'] == pytest.approx(1.5, abs=0.02)
