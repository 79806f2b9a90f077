"""The flame graph in a real browser: it draws, zooms and searches, and runs nothing of a name's."""

from __future__ import annotations

import html
import json
import re
import shutil
import subprocess

import pytest
from profiles import HOSTILE, hostile, plain

from mwtrace.tell.cells import printable
from mwtrace.tell.flamegraph import flamegraph

BROWSER = next(
    filter(None, map(shutil.which, ("chromium-headless-shell", "chromium", "google-chrome"))), None
)
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(BROWSER is None, reason="no Chromium here"),
]
# What a user would do, then what there is to see, as text of an element of its own.
PROBE = """<script>
{actions}
const seen = document.createElement("pre");
seen.id = "seen";
seen.textContent = JSON.stringify({{
  boxes: [...document.querySelectorAll("#graph button")].map((box) =>
    [box.getAttribute("aria-label"), box.className, parseFloat(box.style.width)]),
  matched: document.getElementById("matched").textContent,
  told: document.getElementById("told").textContent,
  images: document.images.length,
  scripts: document.scripts.length,
  title: document.title,
}});
document.body.append(seen);
</script></body>"""


def open_in_browser(tmp_path, page, actions=""):
    path = tmp_path / "flame.html"
    path.write_text(page.replace("</body>", PROBE.format(actions=actions)), "utf-8")
    command = [
        BROWSER,
        "--headless",
        "--no-sandbox",  # the tests may run as root
        "--disable-gpu",
        f"--user-data-dir={tmp_path / 'browser'}",
        "--dump-dom",
        path.as_uri(),
    ]
    done = subprocess.run(command, capture_output=True, timeout=90, check=True)
    (seen,) = re.findall(r'<pre id="seen">(.*?)</pre>', done.stdout.decode(), re.S)
    return json.loads(html.unescape(seen))


def test_every_frame_is_a_box_as_wide_as_its_share(tmp_path):
    seen = open_in_browser(tmp_path, flamegraph(plain()))
    boxes = {label: (kind, width) for label, kind, width in seen["boxes"]}
    assert boxes["all 47.69 MiB"] == ("root", 100)
    kind, width = boxes["orjson_dumps 47.68 MiB"]
    assert kind == "native"
    assert width == pytest.approx(100 * 50_000_000 / 50_004_288, abs=0.01)
    assert boxes["handle 47.68 MiB"][0] == "python"


def test_a_click_zooms_in_and_the_whole_graph_comes_back(tmp_path):
    find = '[...document.querySelectorAll("#graph button")].find((b) => b.textContent === "handle")'
    seen = open_in_browser(tmp_path, flamegraph(plain()), f"{find}.click();")
    widths = {label: (kind, width) for label, kind, width in seen["boxes"]}
    assert widths["handle 47.68 MiB"] == ("python", 100)
    assert widths["main 47.68 MiB"] == ("python above", 100)
    assert "47.68 MiB (100.0%)" in seen["told"]
    back = f'{find}.click(); document.getElementById("reset").click();'
    seen = open_in_browser(tmp_path, flamegraph(plain()), back)
    assert not any("above" in kind for _, kind, _ in seen["boxes"])


def test_a_search_marks_what_it_finds_and_says_its_share(tmp_path):
    search = (
        'const box = document.getElementById("search"); box.value = "ORJSON";'
        'box.dispatchEvent(new Event("input"));'
    )
    seen = open_in_browser(tmp_path, flamegraph(plain()), search)
    assert [label for label, kind, _ in seen["boxes"] if "found" in kind] == [
        "orjson_dumps 47.68 MiB"
    ]
    assert seen["matched"] == "matched 47.68 MiB (100.0%)"


def test_hostile_names_are_text(tmp_path):
    seen = open_in_browser(tmp_path, flamegraph(hostile()))
    innocent = open_in_browser(tmp_path, flamegraph(plain()))
    assert (seen["images"], seen["scripts"]) == (0, innocent["scripts"])
    labels = " ".join(label for label, _, _ in seen["boxes"])
    assert HOSTILE[0] in labels
    assert HOSTILE[1] in labels
    assert seen["title"] == printable("".join(HOSTILE[:8]) + " (pid 1)")
