"""The page: the answer first, one file, its size, what is read aloud, and what a browser does with it."""

import html
import json
import re
import shutil
import subprocess

import numpy as np
import pytest

from runner import compare
from runner.analysis.page.document import render_report, write_report

LIMITS = {"20 points × 30 seeds": (4, 5, 30, 1_000_000), "200 points × 500 seeds": (10, 20, 500, 3_000_000)}
"""Values of two axes, seeds, and the most bytes of the page."""


@pytest.fixture
def page(study):
    return render_report(compare.compare([study]))


def test_the_answer_comes_first_and_then_the_main_picture(page):
    places = [page.index(text) for text in ("<main>", 'id="answer"', 'id="metric-1"', "<figure", 'class="standings"')]
    assert places == sorted(places)
    assert page.count("<main>") == 1
    first = page[page.index('id="metric-1"') : page.index('class="standings"')]
    assert first.count("<figure") == 1
    assert "<details" not in first


def test_every_picture_has_a_caption_and_says_what_is_seen(page):
    figures = page.split("<figure")[1:]
    assert len(figures) == 5
    assert all("<figcaption>" in figure for figure in figures)
    told = [html.unescape(text) for text in re.findall(r'role="img" aria-label="([^"]*)"', page)]
    assert len(told) == 5
    assert any("the least mean is" in text and "the best is" in text for text in told)


def test_the_page_escapes_and_loads_nothing(study):
    evil = study.rename(study.with_name("<b>&"))
    (evil / "programs.csv").write_text('group,task\n0,"<script>alert(1)</script>"\n')
    text = render_report(compare.compare([evil]))
    assert "<h1>&lt;b&gt;&amp;</h1>" in text
    assert "<script>alert(1)" not in text
    assert "&lt;script&gt;alert(1)" in text
    assert "default-src 'none'" in text
    assert not re.search(r"(src|href)=.?https?:", text)


def test_rows_beyond_twenty_are_folded(simulate):
    text = render_report(simulate({"lr": np.arange(1, 26).tolist()}, seeds=3))
    tables = re.findall(r'<table class="standings">.*?</table>', text, re.DOTALL)
    assert [table.count("<tr") - 1 for table in tables] == [20, 5]
    assert "<summary>5 more points</summary>" in text


@pytest.mark.slow
@pytest.mark.parametrize(
    ("rows", "columns", "seeds", "limit"),
    [pytest.param(*limits, id=name, marks=[pytest.mark.matrix] * (limits[2] > 100)) for name, limits in LIMITS.items()],
)
def test_the_page_is_small(simulate, rows, columns, seeds, limit):
    axes = {"lr": np.geomspace(1e-3, 1, columns).tolist(), "width": list(range(rows))}
    metrics = {"loss": "minimize", "accuracy": "maximize", "time": ""}
    assert len(render_report(simulate(axes, seeds=seeds, metrics=metrics)).encode()) < limit


def test_what_is_left_out_and_what_failed_is_on_the_page(toy):
    failed = toy("-m", "task=only_even", "size=2,3", "seed=range(0,6)", "study=mine").folder
    made = compare.compare([failed], keep="seed < 2")
    text = html.unescape(render_report(made))
    assert made.exclusions
    assert all(sentence in text for sentence in made.exclusions)
    assert "2 of 4 runs failed, most at size=3 (2 of 2)." in text
    assert "<li>2 runs: " in text


def test_a_sweep_can_write_its_report(toy):
    called = toy("-m", "task=noisy", "level=1,-1", "seed=range(0,4)", "report=true", "study=mine")
    assert "the report is " in called.out
    text = (called.folder / "report.html").read_text()
    assert "4 of 8 runs have a result that is not finite, most at level=-1 (4 of 4)." in text
    assert text.count("<td>nonfinite</td>") == 4


HARNESS = """<script>
const errors = [];
window.addEventListener("error", event => errors.push(String(event.message)));
document.addEventListener("securitypolicyviolation", event => errors.push("policy " + event.blockedURI));
window.addEventListener("load", () => setTimeout(() => {
  for (const fold of document.querySelectorAll("details")) fold.open = true;
  const table = document.querySelector(".wide table");
  const column = [...table.querySelectorAll("th")].findIndex(th => th.textContent === "mean");
  const click = () => { table.querySelectorAll("th button")[column].click();
    return [...table.tBodies[0].rows].map(row => row.cells[column].textContent); };
  const up = click(), down = click();
  const plot = document.querySelector("#metric-1 .plot"), area = plot.querySelector(".area");
  const box = area.getBoundingClientRect();
  const send = (type, x, y) => plot.dispatchEvent(new PointerEvent(type, {bubbles: true, pointerId: 1, button: 0,
    clientX: box.left + x * box.width, clientY: box.top + y * box.height}));
  plot.setPointerCapture = () => {};
  plot.focus();
  plot.dispatchEvent(new KeyboardEvent("keydown", {key: "ArrowRight", bubbles: true}));
  const tip = document.getElementById("tip").textContent;
  send("pointerdown", 0, 0); send("pointermove", 0.2, 1); send("pointerup", 0.2, 1);
  const bar = document.getElementById("marked").textContent;
  const marked = [...document.querySelectorAll(".marked")].map(path => path.getAttribute("d").split("M").length - 1);
  const smallest = Math.min(...[...document.querySelectorAll(".plot text")].map(text =>
    parseFloat(getComputedStyle(text).fontSize)));
  const found = {up, down, tip, bar, marked, smallest, errors, injected: window.injected || null,
    requests: performance.getEntriesByType("resource").length, title: document.querySelector("h1").textContent,
    width: document.documentElement.scrollWidth, room: document.documentElement.clientWidth};
  const told = document.createElement("pre");
  told.id = "found"; told.textContent = JSON.stringify(found); document.body.append(told);
}, 300));
</script></head>"""


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("chromium") is None, reason="needs chromium")
def test_the_page_in_a_browser(study, tmp_path):
    """At 400 pixels: nothing to scroll across, legible labels; tables are sorted, and runs are found and marked."""
    evil = study.rename(study.with_name("<img src=x onerror=injected=1>"))
    (evil / "programs.csv").write_text("group,task\n0,<script>injected=2</script>\n")
    made = compare.compare([evil])
    page = tmp_path / "page.html"
    page.write_text(write_report(made, evil / "report.html").read_text().replace("</head>", HARNESS, 1))
    flags = ["--headless=new", "--no-sandbox", "--disable-gpu", "--window-size=500,900", f"--user-data-dir={tmp_path}"]
    call = ["chromium", *flags, "--virtual-time-budget=4000", "--dump-dom", page.as_uri()]
    dom = subprocess.run(call, capture_output=True, text=True, timeout=120, check=True).stdout
    found = json.loads(html.unescape(dom.rpartition('<pre id="found">')[2].partition("</pre>")[0]))
    assert (found["errors"], found["requests"], found["injected"]) == ([], 0, None)
    assert found["title"] == evil.name
    means = [f"{mean:.5g}" for mean in sorted(made.points["mean"])]
    assert (found["up"], found["down"]) == (means, means[::-1])
    assert found["width"] <= found["room"]
    assert found["smallest"] >= 12
    assert re.match(r"level=1 seed=\d+score .*python -m runner.replay .*--run \d+$", found["tip"])
    kept = made.points[made.points["level"] == 1]["mean"].item()
    assert found["bar"].startswith(f"8 of 24 runs marked; score: mean {kept:.4g}"[:-1])
    assert found["marked"] == [8, 8]
