"""The page itself, in a real browser."""

from __future__ import annotations

import json
import os
import select
import shutil
import statistics
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.helpers.processes import wait_until
from tests.helpers.reports import EVIL, Roots, rows_of

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
PHONE, DESK = (360, 740), (1280, 900)
in_chromium = pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium: apt-get install chromium")


class Browser:
    """A headless Chromium with one page, by its DevTools protocol over a pipe."""

    def __init__(self, profile: Path) -> None:
        commands, self._commands = os.pipe()
        self._answers, answers = os.pipe()
        assert CHROMIUM is not None
        program = [CHROMIUM, "--headless=new", "--no-sandbox", "--no-first-run", "--disable-gpu"]
        program += ["--remote-debugging-pipe", f"--user-data-dir={profile}"]
        # the protocol wants descriptors 3 and 4
        script = f'exec "$@" 3<&{commands} 4>&{answers} 2>/dev/null'
        self._process = subprocess.Popen(["bash", "-c", script, "bash", *program], pass_fds=(commands, answers))
        os.close(commands)
        os.close(answers)
        self._sent, self._unread, self._session = 0, b"", {}
        self.events: list[dict[str, Any]] = []
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = {"sessionId": self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]}
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def close(self) -> None:
        self._process.kill()
        self._process.wait()
        os.close(self._commands)
        os.close(self._answers)

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """One command of the protocol."""
        self._sent += 1
        command = {"id": self._sent, "method": method, "params": parameters, **self._session}
        os.write(self._commands, json.dumps(command).encode() + b"\0")
        while (answer := self._next()).get("id") != self._sent:
            self.events.append(answer)
        assert "error" not in answer, answer
        return answer["result"]

    def open(self, url: str, screen: tuple[int, int] = DESK, scheme: str = "light", script: bool = True) -> None:
        """A page, in a window of this size, for somebody who likes it ``light`` or ``dark``."""
        width, height = screen
        self.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=2, mobile=width < 600
        )
        self.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
        self.call("Emulation.setScriptExecutionDisabled", value=not script)
        for address in ("about:blank", url):  # or one that differs in its anchor only would not be loaded
            self.events.clear()
            self.call("Page.navigate", url=address)
            while all(event.get("method") != "Page.loadEventFired" for event in self.events):
                self.events.append(self._next())

    def js(self, expression: str) -> Any:
        """What an expression gives, as JSON data."""
        answer = self.call("Runtime.evaluate", expression=expression, returnByValue=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def press(self, key: str, code: int, text: str = "") -> None:
        key_of = {"key": key, "code": key, "windowsVirtualKeyCode": code, "text": text}
        self.call("Input.dispatchKeyEvent", type="keyDown", **key_of)
        self.call("Input.dispatchKeyEvent", type="keyUp", **key_of)

    def click(self, element: str) -> None:
        """In the middle of what an expression gives."""
        middle = "{const r = e.getBoundingClientRect(); return [r.x + r.width / 2, r.y + r.height / 2]}"
        x, y = self.js(f"((e) => {{e.scrollIntoView({{block: 'center'}}); {middle} }})({element})")
        for kind in ("mousePressed", "mouseReleased"):
            self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)

    def complaints(self) -> list[dict[str, Any]]:
        """What stands in the console, and dialogs."""
        kinds = (
            "Runtime.consoleAPICalled",
            "Runtime.exceptionThrown",
            "Log.entryAdded",
            "Page.javascriptDialogOpening",
        )
        return [event for event in self.events if event.get("method") in kinds]

    def requests(self) -> list[str]:
        """The addresses that the page asked for."""
        sent = [event for event in self.events if event.get("method") == "Network.requestWillBeSent"]
        return [event["params"]["request"]["url"] for event in sent]

    def _next(self) -> dict[str, Any]:
        while b"\0" not in self._unread:
            assert select.select([self._answers], [], [], 120)[0], "Chromium does not answer"
            part = os.read(self._answers, 1 << 20)
            assert part, "Chromium is gone"
            self._unread += part
        answer, _, self._unread = self._unread.partition(b"\0")
        return json.loads(answer)


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    started = Browser(tmp_path_factory.mktemp("chromium"))
    yield started
    started.close()


CONTRAST = """
(() => {
  const rgb = (colour) => colour.match(/[\\d.]+/g).map(Number);
  const linear = (v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
  const light = ([r, g, b]) => 0.2126 * linear(r / 255) + 0.7152 * linear(g / 255) + 0.0722 * linear(b / 255);
  const behind = (e) => {
    for (; e; e = e.parentElement) {
      const colour = rgb(getComputedStyle(e).backgroundColor);
      if (colour.length === 3 || colour[3] === 1) return colour;
    }
  };
  document.querySelectorAll("details").forEach((d) => (d.open = true));
  const found = {};
  for (const e of document.querySelectorAll("body *")) {
    if (![...e.childNodes].some((n) => n.nodeType === 3 && n.data.trim()) || e.closest("script")) continue;
    const [a, b] = [light(rgb(getComputedStyle(e).color)), light(behind(e))].sort((x, y) => y - x);
    const kind = `${e.tagName} ${e.className}`;
    found[kind] = Math.min((a + 0.05) / (b + 0.05), found[kind] ?? 99);
  }
  return found;
})()
"""
"""By the definition of the Web Content Accessibility Guidelines: of each kind of element with text the least."""


@in_chromium
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("screen", [PHONE, DESK])
def test_it_opens_without_complaint_and_fits(
    screen: tuple[int, int], scheme: str, browser: Browser, report_page: Path
) -> None:
    browser.open(report_page.as_uri(), screen, scheme)
    assert browser.complaints() == []
    asked = browser.requests()
    assert asked[0] == report_page.as_uri()
    assert all(url.startswith("data:") for url in asked[1:])
    shown = "[...document.querySelectorAll('figure svg')].map((s) => s.getBoundingClientRect().width)"
    wide = [min(screen[0] - 40, 900) if is_wide == (screen is DESK) else 0 for is_wide in (True, False) * 2]
    assert browser.js(shown) == pytest.approx(wide, abs=80), "as wide as the text, in the form for the screen"
    for opened in ("false", "true"):
        browser.js(f"document.querySelectorAll('details').forEach((d) => d.open = {opened})")
        assert browser.js("document.scrollingElement.scrollWidth") <= browser.js("document.documentElement.clientWidth")
    contrast = browser.js(CONTRAST)
    assert len(contrast) > 15
    assert {kind: ratio for kind, ratio in contrast.items() if ratio < 4.5} == {}


FIGURE = "document.querySelector('#smoke-fig3 .{} svg')"


@in_chromium
def test_letters_of_a_figure_can_be_read_on_a_phone(browser: Browser, report_page: Path) -> None:
    """The digits of the axes are as high as those of a text of ten pixels."""
    browser.open(report_page.as_uri(), PHONE)
    heights = f"[...{FIGURE.format('narrow')}.querySelectorAll('[id*=tick] [id*=text]')]"
    heights = browser.js(f"{heights}.map((t) => t.getBoundingClientRect().height).filter(Boolean)")
    assert len(heights) > 3
    assert min(heights) > 0.7 * 9


@in_chromium
@pytest.mark.parametrize(("screen", "form"), [(PHONE, "narrow"), (DESK, "wide")])
def test_a_point_tells_its_value_and_leads_to_its_step(
    screen: tuple[int, int], form: str, browser: Browser, report_page: Path, reported: Roots
) -> None:
    browser.open(report_page.as_uri(), screen)
    assert browser.js("document.getElementById('tip').hidden")
    points = f"[...{FIGURE.format(form)}.querySelectorAll('[data-curve=RotNet] [data-tip]')]"
    browser.click(f"{points}[0]")
    shown = browser.js("document.getElementById('tip').textContent").split("\n")
    level = min(row["level"] for row in rows_of(reported.root) if row["task"] == "rotnet")
    init = "random re-init"  # of the first axes
    rows = [r for r in rows_of(reported.root) if (r["task"], r["init"], r["level"]) == ("rotnet", init, level)]
    assert shown[2:] == [f"seed {row['seed']}: {row['value']:.2f}, step {row['step'][:8]}" for row in rows]
    assert browser.js("[...document.querySelectorAll('#tip a')].map((a) => a.hash)") == [f"#{r['step']}" for r in rows]
    box = browser.js("JSON.stringify(document.getElementById('tip').getBoundingClientRect())")
    assert 0 <= json.loads(box)["left"] <= json.loads(box)["right"] <= screen[0]
    browser.press("Escape", 27)
    assert browser.js("document.getElementById('tip').hidden")


@in_chromium
def test_what_the_pointer_is_at_is_told(browser: Browser, report_page: Path) -> None:
    browser.open(report_page.as_uri())
    point = f"{FIGURE.format('wide')}.querySelectorAll('[data-curve=Random] [data-tip]')[1]"
    browser.js(f"{point}.scrollIntoView({{block: 'center'}})")
    x, y = browser.js(f"((r) => [r.x, r.y])({point}.getBoundingClientRect())")
    browser.call("Input.dispatchMouseEvent", type="mouseMoved", x=x - 2, y=y - 2)
    wait_until(lambda: not browser.js("document.getElementById('tip').hidden"))
    browser.call("Input.dispatchMouseEvent", type="mouseMoved", x=2, y=2)
    wait_until(lambda: browser.js("document.getElementById('tip').hidden"))


@in_chromium
def test_a_click_on_the_legend_hides_a_curve_and_another_shows_it(browser: Browser, report_page: Path) -> None:
    browser.open(report_page.as_uri(), PHONE)
    figure = FIGURE.format("narrow")
    parts = f"[...{figure}.querySelectorAll('[data-curve]')].filter((p) => p.dataset.curve === 'Labels')"
    others = f"[...{figure}.querySelectorAll('[data-curve]')].filter((p) => p.dataset.curve !== 'Labels')"
    seen = ".map((p) => getComputedStyle(p).display !== 'none')"
    key = f"{figure}.querySelector('[role=button][aria-label=\"Hide Labels\"]')"
    assert len(browser.js(parts + seen)) > 2, "line, band and dots"
    for by_key in (False, True):
        for hidden in (True, False):
            if by_key:
                browser.js(f"{key}.focus()")
                browser.press("Enter", 13, "\r")
            else:
                browser.click(key)
            assert set(browser.js(parts + seen)) == {not hidden}
            assert set(browser.js(others + seen)) == {True}
            assert browser.js(f"{key}.getAttribute('aria-pressed')") == str(hidden).lower()


@in_chromium
def test_a_table_wider_than_the_screen_says_that_it_scrolls(browser: Browser, report_page: Path) -> None:
    """Until its end is reached; on a wide screen, where all columns fit, it does not."""
    hint = "[...document.querySelectorAll('#smoke-fig3 .hint')][0].checkVisibility()"
    box = "document.querySelector('#smoke-fig3 .scroll')"
    for screen in (PHONE, DESK):
        browser.open(report_page.as_uri(), screen)
        assert browser.js(f"{box}.scrollWidth > {box}.clientWidth") == (screen is PHONE)
        wait_until(lambda at=screen: browser.js(hint) == (at is PHONE))
        browser.js(f"{box}.scrollLeft = 9999")
        wait_until(lambda: not browser.js(hint))


@in_chromium
def test_dark_is_dark_and_light_is_light(browser: Browser, report_page: Path) -> None:
    seen = {}
    for scheme in ("light", "dark"):
        browser.open(report_page.as_uri(), scheme=scheme)
        seen[scheme] = browser.js("getComputedStyle(document.body).backgroundColor")
    assert seen == {"light": "rgb(250, 250, 248)", "dark": "rgb(20, 23, 26)"}


TABLE = "document.querySelector('#smoke-fig3 table')"
HEADING = f"{TABLE}.tHead.rows[0].cells[{{}}]"


def column(browser: Browser, number: int) -> list[str]:
    """What stands in a column of fig3's means, in the rows that are shown."""
    return browser.js(
        f"[...{TABLE}.tBodies[0].rows].filter((r) => !r.hidden).map((r) => r.cells[{number}].textContent)"
    )


def means(root: Path) -> list[tuple[str, str, float]]:
    """(task, pruned in percent, mean), in the order of the results."""
    values: dict[tuple[str, str, float], list[float]] = {}
    for row in rows_of(root):
        values.setdefault((row["task"], row["init"], 100 - 100 * row["density"]), []).append(row["value"])
    return [
        (task, f"{pruned:.1f}" if pruned else "dense", statistics.fmean(v)) for (task, _, pruned), v in values.items()
    ]


@in_chromium
def test_a_click_sorts_and_another_turns_it_round(browser: Browser, report_page: Path, reported: Roots) -> None:
    browser.open(report_page.as_uri())
    headings = browser.js(f"[...{TABLE}.tHead.rows[0].cells].map((c) => c.textContent)")
    at, task = headings.index("mean ± s.e."), headings.index("task")
    key: Callable[[tuple[str, str, float]], float] = lambda row: row[2]  # noqa: E731
    for reverse, word in ((False, "ascending"), (True, "descending"), (False, "ascending")):
        browser.click(f"{HEADING.format(at)}.firstChild")
        wanted = sorted(means(reported.root), key=key, reverse=reverse)
        assert [text.split(" ±")[0] for text in column(browser, at)] == [f"{mean:.1f}" for _, _, mean in wanted]
        assert column(browser, task) == [name for name, _, _ in wanted]
        assert browser.js(f"{HEADING.format(at)}.ariaSort") == word
    browser.click(f"{HEADING.format(task)}.firstChild")
    assert column(browser, task) == sorted(name for name, _, _ in wanted)
    assert browser.js(f"[...{TABLE}.tHead.rows[0].cells].filter((c) => c.ariaSort).length") == 1


@in_chromium
def test_numbers_are_sorted_as_numbers_by_the_keyboard(browser: Browser, report_page: Path, reported: Roots) -> None:
    browser.open(report_page.as_uri())
    points = "document.querySelectorAll('#smoke-fig3 table')[1]"
    browser.js("document.querySelector('#smoke-fig3 details').open = true")
    browser.js(f"{points}.tHead.rows[0].cells[0].firstChild.focus()")
    wanted = list(range(len(rows_of(reported.root))))
    for rows in (wanted, wanted[::-1]):
        browser.press("Enter", 13, "\r")
        assert browser.js(f"[...{points}.tBodies[0].rows].map((r) => Number(r.cells[0].textContent))") == rows
    assert browser.js("getComputedStyle(document.activeElement).outlineStyle") == "solid"  # it is seen where one is


@in_chromium
def test_words_filter(browser: Browser, report_page: Path, reported: Roots) -> None:
    browser.open(report_page.as_uri(), PHONE)
    browser.click("document.querySelector('#smoke-fig3 input')")
    browser.call("Input.insertText", text="TICKET rot")
    of = browser.js(f"{TABLE}.tBodies[0].rows.length")
    wanted = {(row["task"], row["init"], row["level"]) for row in rows_of(reported.root)}
    shown = [task for task, init, _ in wanted if "rot" in task and "ticket" in init]
    assert column(browser, 0) == shown
    assert 0 < len(shown) < of
    assert browser.js("document.querySelector('#smoke-fig3 output').textContent") == f"{len(shown)} of {of} rows"
    browser.js("document.querySelector('#smoke-fig3 input').value = ''")
    browser.press("Backspace", 8)
    browser.call("Input.insertText", text=" ")
    assert len(column(browser, 0)) == of


@in_chromium
def test_a_point_leads_to_its_step(browser: Browser, report_page: Path, reported: Roots) -> None:
    """Into a table that is folded, also where a filter hides the row."""
    browser.open(report_page.as_uri(), PHONE)
    step = rows_of(reported.root)[5]["step"]
    row = f"document.getElementById('{step}')"
    filtered = "((i) => {i.value = 'no such thing'; i.dispatchEvent(new Event('input'))})"
    browser.js(f"{filtered}(document.querySelector('#steps input'))")
    assert browser.js(f"{row}.hidden")
    browser.js("document.querySelector('#smoke-fig3 details').open = true")
    browser.click(f"document.querySelector('#smoke-fig3 a[href=\"#{step}\"]')")
    assert browser.js("location.hash") == f"#{step}"
    wait_until(lambda: browser.js(f"{row}.checkVisibility()"))  # hashchange comes a moment later
    assert browser.js(f"{row}.matches(':target')")
    top = browser.js(f"{row}.getBoundingClientRect().top")
    assert 0 <= top < PHONE[1]
    assert browser.js("document.scrollingElement.scrollWidth") == PHONE[0]


@in_chromium
def test_a_name_that_is_html_does_nothing(browser: Browser, report_page: Path) -> None:
    browser.open(f"{report_page.as_uri()}#smoke-odd%20%26%20%3Codd%3E")
    assert browser.complaints() == []
    assert browser.js("document.scripts.length") == 1
    heading = "document.getElementById(location.hash.slice(1)).querySelector('h2')"
    assert browser.js(f"{heading}.textContent") == EVIL
    assert 0 <= browser.js(f"{heading}.getBoundingClientRect().top") < DESK[1]


@in_chromium
def test_nothing_but_its_own_script_runs(browser: Browser, report_page: Path, tmp_path: Path) -> None:
    """Were a name not escaped somewhere, it would still do no harm."""
    broken = tmp_path / "broken.html"
    harm = "<script>document.title = 'harm'</script><img src=x onerror=\"document.title = 'harm'\">"
    broken.write_text(report_page.read_text().replace("<main", f"{harm}<main"))
    browser.open(broken.as_uri())
    assert len(browser.complaints()) >= 2
    assert browser.js("document.title").startswith("raysslprune report")


@in_chromium
def test_without_its_script_all_is_there(browser: Browser, report_page: Path, reported: Roots) -> None:
    browser.open(report_page.as_uri(), script=False)
    assert browser.js("document.querySelectorAll('button, input').length") == 0
    assert browser.js("document.querySelectorAll('figure svg [data-curve] title').length") > 10
    assert column(browser, 0) == [task for task, _, _ in means(reported.root)]
    points = "document.querySelectorAll('#smoke-fig3 table')[1].tBodies[0].rows.length"
    assert browser.js(points) == len(rows_of(reported.root))
