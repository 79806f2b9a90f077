"""The page in a real browser: it draws, zooms, searches, and runs nothing of a name's."""

from __future__ import annotations

import html
import json
import os
import re
import shutil
import subprocess

import pytest
import snapshots

from mwtrace.snapshot.analysis import analyze
from mwtrace.tell.heap_page import heap_page

BROWSER = next(
    filter(None, map(shutil.which, ("chromium-headless-shell", "chromium", "google-chrome"))), None
)
EVIL = "</script><script>document.title='run'</script><img src=x onerror=alert(1)>"
PROBE = """<script>
{actions}
const seen = document.createElement("pre");
seen.id = "seen";
seen.textContent = JSON.stringify({{
  boxes: [...document.querySelectorAll("#graph button")].map((box) =>
    [box.textContent, box.className, parseFloat(box.style.width)]),
  rows: [...document.querySelectorAll("#types tr")].map((row) => row.textContent),
  conclusion: document.getElementById("conclusion").textContent,
  matched: document.getElementById("matched").textContent,
  images: document.images.length,
  scripts: document.scripts.length,
  title: document.title,
}});
document.body.append(seen);
</script></body>"""


def opened(tmp_path, page, actions=""):
    path = tmp_path / "page.html"
    path.write_text(page.replace("</body>", PROBE.format(actions=actions)), "utf-8")
    command = [BROWSER, "--headless", "--no-sandbox", "--disable-gpu"]  # tests may run as root
    command += [f"--user-data-dir={tmp_path / 'browser'}", "--dump-dom", path.as_uri()]
    # A sanitizer that is preloaded here is not for a browser.
    environment = {name: value for name, value in os.environ.items() if name != "LD_PRELOAD"}
    done = subprocess.run(command, env=environment, capture_output=True, timeout=90, check=True)
    (seen,) = re.findall(r'<pre id="seen">(.*?)</pre>', done.stdout.decode(), re.S)
    return json.loads(html.unescape(seen))


@pytest.fixture
def page(tmp_path):
    paths = [snapshots.shop(tmp_path / f"{n}.mwsnap", n * 1000, float(n)) for n in (1, 2)]
    return heap_page(analyze(paths))


def test_nothing_is_loaded_from_elsewhere(page):
    assert "default-src 'none'" in page
    assert not re.search(r"(?:src|href)\s*=|url\(|https?://", page)


@pytest.mark.skipif(BROWSER is None, reason="no Chromium here")
def test_the_page_draws_the_tree_and_finds_types(page, tmp_path):
    actions = """
      const search = document.getElementById("search");
      search.value = "SESS"; search.dispatchEvent(new Event("input"));
    """
    seen = opened(tmp_path, page, actions)
    widths = {text: width for text, _, width in seen["boxes"]}
    assert widths["all objects"] == 100
    assert widths["cache: dict"] > 99
    assert "2,000 more, most of them Session" in widths
    assert seen["rows"] == ["shop.Session2,0001.9 MiB1.9 MiB1,000977 KiB"]
    assert seen["matched"].startswith("1 types")
    assert "held by shop.cache['…'] -> Session" in seen["conclusion"]


@pytest.mark.skipif(BROWSER is None, reason="no Chromium here")
def test_a_click_zooms_and_hostile_names_are_text(tmp_path):
    path = snapshots.shop(tmp_path / "a.mwsnap", 100, name=EVIL)
    find = (
        '[...document.querySelectorAll("#graph button")].find('
        '(b) => b.textContent.includes("script"))'
    )
    seen = opened(tmp_path, heap_page(analyze([path])), f"{find}.click();")
    assert (seen["images"], seen["scripts"]) == (0, 3)
    assert seen["title"] == "shop: who holds its memory"
    boxes = {text: (kind, width) for text, kind, width in seen["boxes"]}
    assert boxes["all objects"] == ("above", 100)
    assert boxes[f"{EVIL}: dict"][1] == 100
