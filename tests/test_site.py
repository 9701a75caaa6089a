"""The built pages: complete without a network, and readable on a desk and on a phone.

Slow where they must be built first; `make docs` runs these tests on the pages it has built.
"""

import functools
import http.server
import json
import os
import queue
import re
import shutil
import subprocess
import threading
import zlib
from html.parser import HTMLParser
from pathlib import Path

import pytest
from forked import run_forked

pytestmark = pytest.mark.slow

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
BROWSER = next(filter(None, map(shutil.which, BROWSERS)), None)


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    """Return the folder of the pages, which COMPOPT_SITE may name."""
    if given := os.environ.get("COMPOPT_SITE"):
        return Path(given)
    folder = tmp_path_factory.mktemp("site")
    output = tmp_path_factory.mktemp("printed") / "sphinx"
    options = ("sphinx", "-W", "-q", "-b", "html", "docs", str(folder))
    code = run_forked("-m", *options, output=output, env={**os.environ, "TUTORIAL_STEPS": "4"})
    assert code == 0, output.read_text()
    return folder


def pages(site: Path) -> list[Path]:
    found = sorted(path for path in site.rglob("*.html") if "_downloads" not in path.parts)
    found = [path for path in found if path.name != "look.html"]
    assert len(found) > 20
    return found


class Page(HTMLParser):
    """What a page loads, its text outside code, and its formulas."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.loaded: list[str] = []
        self.prose: list[str] = []
        self.formulas = 0
        self._inside: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        values = dict(attributes)
        if tag in ("img", "script") and values.get("src"):
            self.loaded.append(values["src"])
        if tag == "link" and values.get("rel") in ("stylesheet", "preload", "icon"):
            self.loaded.append(values["href"])
        self.formulas += tag == "math"
        if tag in ("code", "pre", "script", "style", "dt"):
            self._inside.append(tag)

    def handle_endtag(self, tag):
        if self._inside and self._inside[-1] == tag:
            self._inside.pop()

    def handle_data(self, data):
        if not self._inside:
            self.prose.append(data)


def test_pages_load_nothing_from_elsewhere_and_all_that_they_load_is_there(site):
    for path in pages(site):
        loaded = Page(path.read_text()).loaded
        assert loaded
        for target in loaded:
            assert not re.match(r"(https?:)?//", target), (path, target)
            assert (path.parent / target.partition("?")[0]).exists(), (path, target)


def test_formulas_are_rendered(site):
    assert Page((site / "methods.html").read_text()).formulas > 20
    assert Page((site / "api" / "compopt.html").read_text()).formulas > 0
    for path in pages(site):
        prose = "".join(Page(path.read_text()).prose)
        raw = re.findall(r"\\[a-zA-Z]{2,}.{0,30}|\$[^$\n]{1,60}\$|:math:.{0,30}", prose)
        assert not raw, (path, raw)


def test_no_markup_is_left(site):
    """As where fences of one length are nested."""
    for path in pages(site):
        text = path.read_text()
        left = re.findall(r"```.{0,30}|\{\{.{0,30}|^#+ \w.{0,30}|:py:\w+:.{0,30}|``\S+", text, re.M)
        assert not left, (path, left)
    assert "<h2>Install" in (site / "index.html").read_text()


def test_every_public_name_can_be_linked_to(site):
    """By the inventory that other projects' pages read."""
    body = (site / "objects.inv").read_bytes().split(b"\n", 4)[4]
    entries = zlib.decompress(body).decode().splitlines()
    known = {entry.split()[0] for entry in entries if " py:" in entry}
    for name in ("compopt.ACGD", "compopt.penalties.R1", "compopt.optim.rivals.OGDA"):
        assert name in known
    # A table of names links each of them to its place on the same page.
    for path in (site / "api").glob("*.html"):
        text = path.read_text()
        table = re.search(r'<table class="names docutils align-default">.*?</table>', text, re.S)[0]
        rows = table.count("<tr")
        anchors = re.findall(r'<td><p><a class="reference internal" href="#([^"]+)"', table)
        assert len(anchors) == rows
        assert all(f'id="{anchor}"' in text for anchor in anchors)


def test_code_can_be_copied(site):
    assert any("copybutton" in source for source in Page((site / "index.html").read_text()).loaded)


LOOK = """<!doctype html><title>looks</title><body><script>
const looks = [];
async function look(page, width) {
  const frame = document.createElement("iframe");
  frame.width = width;
  frame.height = 900;
  frame.src = page;
  const loaded = new Promise(done => frame.onload = done);
  document.body.append(frame);
  await loaded;
  const inside = frame.contentDocument;
  const pictures = [...inside.images];
  pictures.forEach(picture => picture.loading = "eager");
  await Promise.all(pictures.map(picture => picture.decode().catch(() => null)));
  looks.push({
    page: page,
    width: width,
    wide: [inside.documentElement, ...inside.querySelectorAll("body, .page, .main, .content")]
      .map(box => [box.tagName, box.className, box.scrollWidth - box.clientWidth])
      .filter(([tag, name, excess]) => excess > 0),
    broken: pictures.filter(p => !p.naturalWidth).map(p => p.src),
    pictures: [...inside.querySelectorAll("figure img, .cell_output img")].map(p => p.clientWidth),
    formulas: [...inside.querySelectorAll("math")].map(m => m.getBoundingClientRect().height),
    raw: inside.querySelector("article").innerText.match(/\\\\(frac|delta|nabla|sqrt).*/g) || [],
  });
  frame.remove();
}
(async () => {
  for (const page of PAGES) for (const width of [1280, 390]) await look(page, width);
  await fetch("/looks", {method: "POST", body: JSON.stringify(looks)});
})();
</script>"""


class Handler(http.server.SimpleHTTPRequestHandler):
    """Serves files, takes what the browser found, and prints nothing."""

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.found.put(json.loads(body))
        self.send_response(204)
        self.end_headers()

    def log_message(self, *arguments):
        pass


@pytest.fixture(scope="module")
def looks(site, tmp_path_factory) -> list[dict]:
    """Return what a browser finds on each page, at the width of a desk and of a phone."""
    if BROWSER is None:
        pytest.skip("needs Chromium or Chrome")
    names = [path.relative_to(site).as_posix() for path in pages(site)]
    (site / "look.html").write_text(LOOK.replace("PAGES", json.dumps(names)))
    handler = functools.partial(Handler, directory=str(site))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        server.found = queue.Queue()
        threading.Thread(target=server.serve_forever, daemon=True).start()
        options = ["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run"]
        options += ["--disable-background-networking", "--disable-component-update"]
        options += ["--remote-debugging-port=0", f"--user-data-dir={tmp_path_factory.mktemp('b')}"]
        browser = subprocess.Popen(
            [BROWSER, *options, f"http://127.0.0.1:{server.server_port}/look.html"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            found = server.found.get(timeout=300)
        finally:
            browser.terminate()
            browser.wait()
            server.shutdown()
    assert len(found) == 2 * len(names)
    return found


def test_no_page_scrolls_sideways(looks):
    assert not [(look["page"], look["width"], look["wide"]) for look in looks if look["wide"]]


def test_every_picture_loads_and_is_large_enough_to_read(looks):
    assert not [look["broken"] for look in looks if look["broken"]]
    assert sum(len(look["pictures"]) for look in looks) > 20
    for look in looks:
        assert all(width >= 600 for width in look["pictures"]), (look["page"], look["pictures"])


def test_a_browser_lays_out_every_formula(looks):
    assert sum(len(look["formulas"]) for look in looks) > 50
    assert not [look["raw"] for look in looks if look["raw"]]
    assert all(height > 5 for look in looks for height in look["formulas"])
