"""The status page in a real browser, of a real worker between real brokers."""

from __future__ import annotations

import json
import re

import pytest
from selenium.common.exceptions import JavascriptException
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.keys import Keys

from app.characters import visible
from tests.bridge.test_kafka import set_limit
from tests.support.browser import DESKTOP, PHONE, Browser, chromium
from tests.support.oracle import read, wait_until
from tests.support.page_stage import HOSTILE_TOPICS, TOKEN, Stage, post
from tests.support.raw_http import get, headers_of, status_of
from tests.support.system import KAFKA_AWAY, Bridge

LEAST_CONTRAST = 4.5  # of text, as WCAG 2 has it for level AA
# Yields each text that is seen, with its contrast to what is behind it.
CONTRASTS = """
const channels = (colour) => colour.match(/[\\d.]+/g).map(Number);
const luminance = (colour) => {
  const [r, g, b] = channels(colour).slice(0, 3).map((value) => {
    value /= 255;
    return value <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4;
  });
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
};
const ground = (element) => {
  for (; element; element = element.parentElement) {
    const colour = getComputedStyle(element).backgroundColor;
    if ((channels(colour)[3] ?? 1) > 0) return colour;
  }
  return "rgb(255, 255, 255)";
};
const found = [];
const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
while (walker.nextNode()) {
  const text = walker.currentNode.textContent.trim();
  const element = walker.currentNode.parentElement;
  if (!text || !element.checkVisibility() || element.closest("script, noscript")) continue;
  const [light, dark] = [luminance(getComputedStyle(element).color), luminance(ground(element))].sort((a, b) => b - a);
  found.push([text, (light + 0.05) / (dark + 0.05)]);
}
return found;
"""

# Yields of each element its text as it is drawn, the width of that, and whether a line stands behind it.
SEEN = """
return [...document.querySelectorAll(arguments[0])].map((element) => {
  const range = document.createRange();
  range.selectNodeContents(element);
  const line = getComputedStyle(element, "::after");
  return [element.innerText, range.getBoundingClientRect().width, parseFloat(line.borderRightWidth) > 0];
});
"""
# Writes a text into an element as the page does; yields what is drawn, whether the page has its width, and a line.
WRITTEN = """
const [place, text] = arguments;
const list = document.getElementById("more-findings");
if (!list.children.length) {
  document.getElementById("more").hidden = false;
  const item = list.appendChild(document.createElement("li"));
  item.append(document.createElement("strong"), " ", document.createElement("span"));
}
return import("/page/dom.js").then(({ setText }) => {
  const element = document.querySelector(place);
  setText(element, text);
  const fits = document.documentElement.scrollWidth <= document.documentElement.clientWidth;
  return [element.innerText, fits, parseFloat(getComputedStyle(element, "::after").borderRightWidth) > 0];
});
"""


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    with chromium(tmp_path_factory.mktemp("chromium")) as running:
        yield running


@pytest.fixture(scope="module")
def stage(browser, mosquitto, kafka, tmp_path_factory):
    with Stage(tmp_path_factory.mktemp("page"), mosquitto, kafka) as running:
        yield running


def number_in(text: str) -> float:
    return float(re.search(r"[\d.,]+", text)[0].replace(",", ""))


def rows_of(browser: Browser, table: str) -> list[list[str]]:
    return browser.script(
        "return [...document.getElementById(arguments[0]).tBodies[0].rows]"
        ".map((row) => [...row.cells].map((cell) => cell.textContent))",
        table,
    )


def open_page(browser: Browser, bridge: Bridge, size=DESKTOP, scheme="light") -> None:
    """Load the page and wait for its first answer."""
    browser.driver.get_log("browser")
    browser.open(f"{bridge.url}/", size, scheme)
    browser.wait_for_text("freshness", "live")


def show_dead_letters(browser: Browser, stage: Stage, size=DESKTOP, scheme="light") -> None:
    """Load the page with dead letters on it, and the token given."""
    stage.have_dead_letters()
    open_page(browser, stage.bridge, size, scheme)
    give_token(browser, TOKEN)
    browser.wait_for_text("dead-letters-answer", "The token is right.")
    wait_until(lambda: len(rows_of(browser, "dead-letters")) == len(HOSTILE_TOPICS), "the dead letters in the table")


def give_token(browser: Browser, token: str) -> None:
    browser.element("token").send_keys(token, Keys.ENTER)


# ---- what it says


def test_one_look_tells_that_all_is_well_and_what_flows(browser, stage):
    """And nothing is loaded from anywhere else, nothing is against the page's own rules, nothing is an error."""
    stage.have_no_dead_letters()
    browser.driver.get_log("performance")
    open_page(browser, stage.bridge)
    browser.wait_for_text("headline-text", "All is well.")
    assert browser.element("headline").get_attribute("data-level") == "ok"
    assert browser.driver.title == "✓ OK - Connector"
    assert browser.text("client") == stage.bridge.status_page()["mqtt"]["client_id"]
    assert stage.bridge.status_page()["site"] is None
    assert "✓ Connected" in browser.text("mqtt-state")
    assert "✓ Connected" in browser.text("kafka-state")
    for name in ("received-rate", "delivered-rate"):
        wait_until(lambda name=name: 5 < number_in(browser.text(name)) < 80, f"about 50 messages a second: {name}")
    routes = {row[0]: row[1:] for row in rows_of(browser, "routes")}
    measured, state = (
        number_in(routes[f"page/{name}"][0]) for name in ("line/+:page.measurements", "state:page.state")
    )
    assert measured > 2 * state > 0, "each route has its own flow"
    wait_until(lambda: ["page.state", "✓ direct", "0", ""] in rows_of(browser, "lanes"), "a lane that is direct")
    assert "The worker was not running before this." in rows_of(browser, "losses")[-1][2]
    for chart in ("received", "delivered", "waiting"):
        label = browser.script("return document.querySelector(`svg.${arguments[0]}`).getAttribute('aria-label')", chart)
        assert re.fullmatch(rf"{chart.title()}: .* now, from .* to .* in the last 2 min", label)

    assert browser.driver.get_log("browser") == []
    events = [json.loads(entry["message"])["message"] for entry in browser.driver.get_log("performance")]
    asked = {event["params"]["request"]["url"] for event in events if event["method"] == "Network.requestWillBeSent"}
    assert f"{stage.bridge.url}/page/page.js" in asked
    assert not {url for url in asked if not url.startswith(f"{stage.bridge.url}/")}


def test_an_outage_is_told_and_the_backlog_grows_and_drains_without_a_reload(browser, stage):
    stage.have_no_dead_letters()
    open_page(browser, stage.bridge)
    browser.wait_for_text("headline-text", "All is well.")
    browser.script("window.loadedOnce = true")
    stage.kafka.stop()
    try:
        browser.wait_for_text("headline-text", "Kafka is not reachable")
        assert "Bring Kafka back" in browser.text("headline-advice")
        assert browser.element("headline").get_attribute("data-level") == "trouble"
        assert browser.driver.title.endswith("Trouble - Connector")
        browser.wait_for_text("kafka-state", "✕ Not connected")
        wait_until(lambda: number_in(browser.text("backlog")) > 50, "messages that wait")
        before = number_in(browser.text("backlog"))
        wait_until(lambda: number_in(browser.text("backlog")) > before, "more of them")
        assert re.search(r"\d+ (s|min)", browser.text("oldest"))
        wait_until(lambda: browser.text("full-in") != "does not grow", "an estimate of the time to a full table")
        assert browser.text("drained-in") == "does not shrink"
        assert "Kafka is not reachable" in [row[3] for row in rows_of(browser, "lanes")]
        wait_until(lambda: "Kafka is not reachable; messages wait in the table" in
                   [row[2] for row in rows_of(browser, "problems")], "the line of the log")  # fmt: skip
        waiting = "return document.querySelector('svg.waiting').getAttribute('aria-label')"
        wait_until(lambda: number_in(browser.script(waiting)) > 50, "the backlog in its chart")
    finally:
        stage.kafka.start()
    browser.wait_for_text("headline-text", "All is well")
    wait_until(lambda: browser.text("backlog") == "✓ 0 messages", "an empty backlog")
    assert browser.script("return window.loadedOnce"), "it is the page that was loaded first"


def test_a_worker_that_is_gone_is_told_with_the_time_of_its_last_answer(browser, stage):
    open_page(browser, stage.bridge)
    browser.script("window.loadedOnce = true")
    stage.bridge.kill()
    try:
        browser.wait_for_text("headline-text", "The worker does not answer.")
        assert re.search(r"The last one came at \d\d:\d\d:\d\d", browser.text("headline-advice"))
        assert re.fullmatch(r"last answer \d\d:\d\d:\d\d", browser.text("freshness"))
        assert browser.script("return document.body.classList.contains('stale')")
    finally:
        stage.bridge.start()
    browser.wait_for_text("freshness", "live")
    assert "does not answer" not in browser.text("headline-text")
    assert browser.script("return window.loadedOnce")


def test_the_site_is_in_the_title_and_the_head_line_also_when_its_worker_is_gone(browser, mosquitto, names, tmp_path):
    """Whoever has the pages of many sites in as many tabs sees which one is in trouble."""
    directory = tmp_path / names.client_id
    with Bridge(directory, mosquitto.port, KAFKA_AWAY, "a:a", site="oslo-1", mqtt_client_id="connector-0") as bridge:
        assert bridge.status_page()["site"] == "oslo-1"
        open_page(browser, bridge)
        assert browser.driver.title.endswith(" - oslo-1 - Connector")
        assert browser.text("client") == "oslo-1 connector-0"
        bridge.kill()
        browser.wait_for_text("headline-text", "The worker does not answer.")
        assert browser.driver.title == "✕ Trouble - oslo-1 - Connector"


# ---- dead letters


def test_a_dead_letter_is_shown_with_its_reason_as_text_and_retried_and_deleted_with_the_token(browser, stage):
    stage.have_dead_letters()
    open_page(browser, stage.bridge)
    browser.wait_for_text("dead-letters-count", "3 of them")
    browser.wait_for_text("headline-text", "Dead letters wait for a decision: 3.")
    rows = rows_of(browser, "dead-letters")
    assert [row[:3] for row in rows] == [["too_large", "page.small", visible(topic)] for topic in HOSTILE_TOPICS]
    assert rows[1][2].endswith(r"/בית/12\u202e\u200b\U000e0041"), "letters stay, what nobody sees is written out"
    turned = "return getComputedStyle(document.querySelector('#dead-letters td:nth-child(3)')).unicodeBidi"
    assert browser.script(turned) == "plaintext", "text from right to left turns nothing beside it"
    assert {row[5] for row in rows} == {"shown with the token"}
    assert not browser.script("return document.querySelectorAll('#dead-letters button, #dead-letters img').length")

    give_token(browser, "a-token-that-is-wrong")
    browser.wait_for_text("dead-letters-answer", "WEB_TOKEN")
    assert browser.element("token-form").is_displayed()
    give_token(browser, TOKEN)
    browser.wait_for_text("dead-letters-answer", "The token is right.")
    wait_until(lambda: "<b>bold</b>" in rows_of(browser, "dead-letters")[0][5], "the beginning of a payload")

    set_limit(stage.kafka, "page.small", 100_000)
    try:
        browser.driver.find_element("css selector", "#dead-letters tbody tr button").click()
        browser.wait_for_text("dead-letters-answer", "Sent once more: 1 message.")
        browser.wait_for_text("dead-letters-count", "2 of them")
        (record,) = read(stage.kafka.bootstrap, ["page.small"], 1).records
        assert record.headers["mqtt-topic"].decode() == HOSTILE_TOPICS[0]
    finally:
        set_limit(stage.kafka, "page.small", 20_000)
    browser.element("delete-all").click()
    browser.driver.switch_to.alert.accept()
    browser.wait_for_text("dead-letters-answer", "Deleted: 2 messages.")
    wait_until(lambda: rows_of(browser, "dead-letters") == [], "an empty list")

    assert browser.script("return [document.cookie, localStorage.length, sessionStorage.length]") == ["", 0, 0]
    assert browser.script("return window.hacked") is None
    with pytest.raises(JavascriptException, match="TrustedHTML"):
        browser.script("document.body.innerHTML = '<b>markup</b>'")


@pytest.mark.parametrize("size", [DESKTOP, PHONE], ids=["desktop", "phone"])
def test_topics_that_differ_in_blanks_alone_look_different(size, browser, stage):
    """HTML shows several blanks as one, and none at the beginning and at the end."""
    topics = [f"page/dead/{name}" for name in ("pump 1", "pump  1", "pump      1", "pump 1 ", " pump 1")]
    stage.have_dead_letters(topics)
    open_page(browser, stage.bridge, size)
    wait_until(lambda: len(rows_of(browser, "dead-letters")) == len(topics), "the dead letters in the table")
    seen = browser.script(SEEN, "#dead-letters td:nth-child(3)")
    assert [text for text, _, _ in seen] == topics
    one_blank, *widths = [width for _, width, _ in seen]
    blank = widths[0] - one_blank
    assert blank > 1, "each blank has its width"
    assert [width - one_blank for width in widths] == pytest.approx([blank, 5 * blank, blank, blank], abs=1)
    assert [has_line for _, _, has_line in seen] == [False, False, False, True, False]


def test_blanks_are_seen_wherever_a_text_of_others_is_shown(browser, stage):
    """Heads of rows, findings, addresses, and what a command about dead letters answers; long words are broken."""
    stage.have_dead_letters()
    open_page(browser, stage.bridge, PHONE)
    wait_until(lambda: rows_of(browser, "dead-letters") and rows_of(browser, "routes"), "rows of the tables")
    text = " a  b" + "c" * 300 + " "
    for place in (
        "#routes tbody th", "#lanes tbody th", "#lanes td.long", "#problems td.long, #losses td.long", "#headline-text",
        "#headline-advice", "#more-findings strong", "#more-findings span", "#client", "#mqtt-address",
        "#kafka-address", "#dead-letters-answer",
    ):  # fmt: skip
        shown, fits, has_line = browser.script(WRITTEN, place, text)
        assert (shown, fits, has_line) == (text, True, True), place


def test_nothing_can_be_changed_without_a_token_or_with_a_wrong_one(stage, mosquitto, names, tmp_path):
    stage.have_dead_letters()
    for token in (None, "", "a-token-that-is-wrong", f"{TOKEN}x", TOKEN[:-1], "ümlaut".encode().decode("latin-1")):
        for action in ("retry", "delete"):
            status, answer = post(stage.bridge, action, {"all": True}, token)
            assert (status, "WEB_TOKEN" in answer["error"]) == (401, True), token
    both = {"ids": ["00"], "all": True}
    bad = ({}, [], {"ids": []}, {"ids": "x"}, {"ids": [1]}, {"all": "yes"}, both, b"", b"{", b"\xff", b"[" * 500_000)
    for body in bad:
        assert post(stage.bridge, "delete", body, TOKEN)[0] == 400, body
    assert post(stage.bridge, "delete", {"ids": ["00"]}, TOKEN)[0] == 409
    assert post(stage.bridge, "delete", b"x" * 2_000_000, TOKEN)[0] == 413, "so much is not read"
    assert stage.bridge.status_page()["table"]["dead_letters"] == len(HOSTILE_TOPICS)
    listed = json.loads(stage.bridge.get("/dead-letters")[1])
    assert {letter["payload"] for letter in listed["dead_letters"]} == {None}

    with Bridge(tmp_path / names.client_id, mosquitto.port, "127.0.0.1:1", "a:a") as bridge:
        for token in (None, "None", TOKEN):
            status, answer = post(bridge, "delete", {"all": True}, token)
            assert status == 403
            assert answer["error"].startswith("These pages are read-only: set WEB_TOKEN")


# ---- for everybody, everywhere


def test_it_is_readable_on_a_phone_without_scrolling_sideways(browser, stage):
    show_dead_letters(browser, stage, PHONE)
    width = browser.script(
        "return [document.documentElement.scrollWidth, document.documentElement.clientWidth, innerWidth]"
    )
    assert width == [360, 360, 360]
    outside = browser.script(
        "return [...document.querySelectorAll('main *')].filter((element) => element.checkVisibility()"
        " && element.getBoundingClientRect().right > 360.5 && !element.closest('thead')).map((element) => element.id)"
    )
    assert outside == []
    small = browser.script(
        "return [...document.querySelectorAll('button, input')].filter((element) => element.checkVisibility()"
        " && element.getBoundingClientRect().height < 40).map((element) => element.id)"
    )
    assert small == [], "a finger must meet it"


def test_texts_have_contrast_in_the_light_and_in_the_dark(browser, stage):
    show_dead_letters(browser, stage)
    grounds = []
    for scheme in ("light", "dark"):
        browser.prefer(scheme)
        texts = browser.script(CONTRASTS)
        assert len(texts) > 60
        weak = [text for text in texts if text[1] < LEAST_CONTRAST]
        assert not weak, f"{scheme}: {weak}"
        grounds.append(browser.script("return getComputedStyle(document.body).backgroundColor"))
    assert grounds[0] != grounds[1]


def test_the_keyboard_reaches_everything_and_shows_where_it_is(browser, stage):
    show_dead_letters(browser, stage)
    open_page(browser, stage.bridge)
    wait_until(lambda: len(rows_of(browser, "dead-letters")) == len(HOSTILE_TOPICS), "the dead letters in the table")

    def tab(times: int) -> list[str]:
        reached = []
        for _ in range(times):
            ActionChains(browser.driver).send_keys(Keys.TAB).perform()
            name, outline = browser.script(
                "const it = document.activeElement;"
                "return [it.id || it.getAttribute('aria-label') || it.textContent, getComputedStyle(it).outlineStyle]"
            )
            assert outline == "solid", f"one does not see that {name} has the focus"
            reached.append(name)
        return reached

    assert tab(4) == ["Skip to the details", "token", "token-use", "status as JSON"]
    give_token(browser, TOKEN)
    browser.wait_for_text("dead-letters-answer", "The token is right.")
    browser.script("document.activeElement.blur(); document.getElementById('main').focus()")
    reached = tab(3 + 2 * len(HOSTILE_TOPICS))
    assert reached[:3] == ["retry-all", "delete-all", "token-forget"]
    assert [re.sub(r" [0-9a-f]+$", "", name) for name in reached[3:]] == [
        "Retry the dead letter",
        "Delete the dead letter",
    ] * len(HOSTILE_TOPICS)
    ActionChains(browser.driver).send_keys(Keys.ENTER).perform()
    browser.driver.switch_to.alert.accept()
    browser.wait_for_text("dead-letters-answer", "Deleted: 1 message.")
    assert browser.script("return document.activeElement.id") == "dead-letters-heading", "the focus is not lost"


def test_a_screen_reader_finds_landmarks_headings_tables_and_names(browser, stage):
    """As Chromium hands the page to assistive technology; on a phone, where tables do not look like tables."""
    show_dead_letters(browser, stage, PHONE)
    nodes = browser.driver.execute_cdp_cmd("Accessibility.getFullAXTree", {})["nodes"]
    named = [
        (node["role"]["value"], node.get("name", {}).get("value", ""))
        for node in nodes
        if not node["ignored"] and "role" in node
    ]
    roles = {role for role, _ in named}
    assert {"banner", "main", "contentinfo", "navigation", "status", "table", "columnheader", "rowheader"} <= roles
    headings = [name for role, name in named if role == "heading"]
    assert headings[0].startswith("Connector")
    for title in ("The way of the messages", "The last hour", "Lanes", "Routes", "Dead letters", "Possible losses"):
        assert [name for name in headings if name.startswith(title)], title
    tables = [name for role, name in named if role == "table"]
    assert len(tables) == 5
    assert all(tables)
    images = [name for role, name in named if role == "image"]
    assert [name.split(":")[0] for name in images] == ["Received", "Delivered", "Waiting"]
    buttons = [name for role, name in named if role == "button"]
    assert all(buttons)
    assert len(set(buttons)) == len(buttons) == 3 + 2 * len(HOSTILE_TOPICS), "each says what it does, and to which"
    live = browser.script("return document.getElementById('headline').getAttribute('aria-live')")
    assert live == "polite"
    assert browser.script("return document.documentElement.lang") == "en"
    open_page(browser, stage.bridge)
    fields = browser.driver.execute_cdp_cmd("Accessibility.getFullAXTree", {})["nodes"]
    assert "Token" in [node["name"]["value"] for node in fields if node.get("role", {}).get("value") == "textbox"]


def test_every_answer_says_what_a_browser_may_do_with_it(stage):
    files = ("/", "/page/style.css", "/page/page.js", "/page/icon.svg", "/status", "/history", "/dead-letters")
    for path in (*files, "/metrics", "/health/live", "/health/ready", "/nothing", "/bad request"):
        answer = get(stage.bridge.port, path)
        assert status_of(answer) == {"/nothing": 404, "/bad request": 400}.get(path, 200)
        headers = headers_of(answer)
        assert "default-src 'none'" in headers["content-security-policy"], path
        assert "unsafe" not in headers["content-security-policy"], path
        assert headers["x-content-type-options"] == "nosniff", path
        assert headers["server"] == "connector", path
    assert status_of(get(stage.bridge.port, "/status", "evil.example")) == 421
    for path in ("/page/", "/page/__init__.py", "/page/../static.py", "/page/%2e%2e/static.py", "/page/xstyle.css"):
        assert stage.bridge.get(path)[0] == 404, path
