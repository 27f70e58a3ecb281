"""The report's page in a real browser, from a payload made by hand; every expected number was worked out by hand."""

import copy
import json
import os
import re
import shutil
import time

import pytest
from conftest import slowness

from rl_posttrain.views.report import page as page_module
from rl_posttrain.views.report.page import render_page

HOSTILE = (
    "</script><script>window.pwned=1</script><!--<img src=x onerror=window.pwned=1> \u202egnp.exe \x00 \ud800 &amp; end"
)
STEPS = [1, 2, 3, 4]


def run(name, variant, seed, reward, **more):
    points = range(1, len(reward) + 1)
    x = {
        "step": list(points),
        "tokens": [100 * point for point in points],
        "seconds": [0.5 * point for point in points],
    }
    return {
        "name": name,
        "variant": variant,
        "seed": seed,
        "state": "finished",
        "x": x,
        "y": {"reward": reward, "eval/accuracy": [None, 0.5, None, 0.75, None][: len(reward)]},
    } | more


PAYLOAD = {
    "title": "AdamS and AdamW",
    "headline": ["AdamS is ahead by 0.25."],
    "notices": ["b-1 is still running."],
    "checks": ["The same questions in the same order: yes."],
    "footer": "Made by a test.",
    "axes": {"step": "step", "tokens": "tokens", "seconds": "wall-clock (s)"},
    "charts": [
        {"id": "reward", "title": "Reward", "unit": "", "note": "mean over the step's completions"},
        {"id": "eval/accuracy", "title": "Accuracy", "unit": "share", "note": ""},
    ],
    "variants": [
        {"label": "AdamS", "colour": "#0072b2", "dash": "solid"},
        {"label": "AdamW", "colour": "#000000", "dash": "dash"},
    ],
    "runs": [
        run("a-0", 0, 0, [0.0, 1.0, 2.0, 3.0]),
        run("a-1", 0, 1, [2.0, 3.0, 4.0, 5.0]),
        run("a-2", 0, 2, [4.0, 8.0, 6.0, 10.0]),
        run("b-0", 1, 0, [1.0, 2.0, None, 3.0, 4.0]),
        run("b-1", 1, None, [3.0, 4.0, 5.0]),
    ],
    "smoothing": 1,
    "t95": [None, None, 12.7, 4.3],
    "phases": {"names": ["rollout", "update"], "seconds": [[2.0, 3.0], [1.0, None]]},
    "memory": [{"label": "optimizer state", "gib": [0.5, 1.0]}, {"label": "peak memory", "gib": [None, None]}],
    "tables": {
        "verdict": {
            "title": "Verdict",
            "note": "Paired by seed.",
            "columns": [
                {"key": "metric", "label": "metric", "kind": "text", "help": "What is compared."},
                {"key": "gain", "label": "gain", "kind": "number"},
                {"key": "word", "label": "verdict", "kind": "text"},
            ],
            "rows": [
                {"metric": "area", "gain": {"text": "9 ± 1", "value": 9}, "word": {"text": "better", "class": "good"}},
                {"metric": "last", "gain": "-", "word": {"text": "<i>open</i>", "class": "open"}},
                {"metric": "steps", "gain": {"text": "10.5", "value": 10.5}, "word": "-"},
                {"metric": "time", "gain": {"text": "-2", "value": -2}, "word": {"text": "worse", "class": "bad"}},
            ],
        },
        "seeds": None,
    },
    "samples": [
        {
            "variant": 0,
            "seed": 0,
            "early": {
                "step": 1,
                "rows": [{"prompt": "1+1=", "completion": HOSTILE, "answer": "2", "reward": 0.0}],
            },
            "late": {"step": 4, "rows": [{"prompt": "1+1=", "completion": "2", "answer": "2", "reward": 1.0}]},
        },
        {"variant": "AdamW", "seed": 0, "early": None, "late": None},
    ],
    "environment": [{"name": "a-0", "rows": [["torch", "2.13.0"], ["device", None]]}],
    "commands": ["rl-posttrain report runs/a-0 runs/b-0"],
}


@pytest.fixture(scope="module")
def browser():
    chromium = shutil.which("chromium")
    if chromium is None:
        why = "no browser to show the page in; apt-get install chromium"
        if os.environ.get("CI"):
            pytest.fail(why)
        pytest.skip(why)
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    path = tmp_path_factory.mktemp("page") / "report.html"
    path.write_text(render_page(PAYLOAD), encoding="utf-8")
    return path


@pytest.fixture
def show(browser, written, tmp_path):
    """Opens a payload's page, and fails the test at its end if the page complained or asked for anything but itself."""
    troubles, contexts = [], []

    def open_page(payload=None, **options):
        path = written
        if payload is not None:
            path = tmp_path / "report.html"
            path.write_text(render_page(payload), encoding="utf-8")
        counts_at_load = options.pop("counts_at_load", False)
        options = {"viewport": {"width": 1400, "height": 900}} | options
        context = browser.new_context(offline=True, **options)
        context.set_default_timeout(30_000 * slowness())
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda message: troubles.append(f"console: {message.text}"))
        page.on("pageerror", lambda error: troubles.append(f"error: {error}"))
        if counts_at_load:
            count = "selector => document.querySelectorAll(selector).length"
            page.add_init_script(
                f"addEventListener('load', () => {{ atLoad = ['.plot', '.plot:has(.main-svg)'].map({count}); }})"
            )
        address = path.as_uri()
        page.on(
            "request",
            lambda request: (
                None
                if request.url.startswith((address, "data:", "blob:"))
                else troubles.append(f"request: {request.url}")
            ),
        )
        page.goto(address)
        if options.get("java_script_enabled", True):
            settle(page)
        return page

    open_page.troubles = troubles
    yield open_page
    for context in contexts:
        context.close()
    assert troubles == []


def settle(page):
    page.evaluate("report.settled()")


def names(page, chart="reward"):
    return page.evaluate("id => report.visibleTraces(id)", chart)


def values(page, name, chart="reward"):
    trace = page.evaluate("([id, name]) => report.trace(id, name)", [chart, name])
    return trace["x"], trace["y"]


def switch(page, selector):
    page.locator(selector).click()
    settle(page)


def changed(**parts):
    return copy.deepcopy(PAYLOAD) | parts


def test_page_asks_for_nothing_and_its_policy_holds(show):
    page = show()
    policy = page.locator("meta[http-equiv='Content-Security-Policy']").get_attribute("content")
    for part in (
        "default-src 'none'",
        "script-src 'unsafe-inline'",
        "style-src 'unsafe-inline'",
        "img-src data: blob:",
    ):
        assert part in policy
    own = "".join(page_module._file(name) for name in ("page.html", "page.css", "page.js"))
    # The one address is a name: that of SVG's elements.
    assert set(re.findall(r"\w+://[^\"' ]+", own)) == {"http://www.w3.org/2000/svg"}
    assert page.locator(".plot .main-svg").count() >= 4
    assert show.troubles == []
    assert page.evaluate("fetch('data:,x').then(() => 'came', () => 'refused')") == "refused"
    assert all("Content Security Policy" in trouble for trouble in show.troubles)
    show.troubles.clear()


def test_every_chart_is_drawn_before_the_page_has_loaded(show):
    """Programs that make a picture or a PDF of a page take it at its load event, and do not scroll."""
    charts = [{"id": f"metric/{place}", "title": f"Metric {place}", "unit": "", "note": ""} for place in range(20)]
    payload = changed(charts=[*PAYLOAD["charts"], *charts])
    for one in payload["runs"]:
        one["y"] |= {chart["id"]: [1.0] * len(one["x"]["step"]) for chart in charts}
    page = show(payload, counts_at_load=True)
    assert page.evaluate("window.atLoad") == [24, 24]


def test_picture_of_a_chart_can_be_saved_under_the_policy(show):
    page = show()
    picture = page.evaluate("Plotly.toImage(document.querySelector('.plot'), {format: 'png'})")
    assert picture.startswith("data:image/png;base64,")


def test_lines_means_and_bands_are_drawn(show):
    page = show()
    bands = ["AdamS band", "AdamW band"]
    assert names(page) == [*bands, "a-0", "a-1", "a-2", "b-0", "b-1", "AdamS", "AdamW"]
    assert values(page, "AdamS") == (STEPS, [2, 4, 4, 6])
    # Missing at step 3 in b-0, and b-1 ends there: the mean is of both runs or it is not.
    assert values(page, "b-0") == ([1, 2, 3, 4, 5], [1, 2, None, 3, 4])
    assert values(page, "AdamW") == ([1, 2, 3], [2, 3, None])
    # Step 1: 0, 2, 4 have mean 2 and standard deviation 2, so the band is 2 +- 4.3 * 2 / sqrt(3).
    x, y = values(page, "AdamS band")
    assert x == [1, 2, 3, 4, 4, 3, 2, 1, None]
    assert y[0] == pytest.approx(2 + 4.96521, abs=1e-4)
    assert y[7] == pytest.approx(2 - 4.96521, abs=1e-4)
    # Two runs, 12.7 at one degree of freedom: 1 and 3 have standard deviation sqrt(2), 2 +- 12.7.
    assert values(page, "AdamW band")[1] == pytest.approx([14.7, 15.7, 3 - 12.7, 2 - 12.7, None])


def test_run_on_its_way_does_not_cut_the_mean_short(show):
    runs = [*PAYLOAD["runs"][:4], run("b-1", 1, None, [3.0, 4.0, 5.0], state="running")]
    page = show(PAYLOAD | {"runs": runs})
    assert values(page, "b-1") == ([1, 2, 3], [3, 4, 5])
    assert values(page, "AdamW") == ([1, 2, 3, 4, 5], [1, 2, None, 3, 4])
    assert "(running)" in page.locator("input[data-run='b-1']").locator("xpath=../..").inner_text()
    switch(page, "input[data-run='b-0']")
    assert values(page, "AdamW") == ([1, 2, 3], [3, 4, 5])


def test_a_failed_run_is_marked_and_no_part_of_the_mean(show):
    runs = [*PAYLOAD["runs"][:2], run("a-2", 0, 2, [4.0, 8.0, None, None], state="failed"), *PAYLOAD["runs"][3:]]
    page = show(PAYLOAD | {"runs": runs})
    assert values(page, "AdamS") == (STEPS, [1, 2, 3, 4])
    # At its last good value, whatever the other runs do.
    assert values(page, "a-2 failed") == ([2], [8])
    assert "(failed)" in page.locator("input[data-run='a-2']").locator("xpath=../..").inner_text()
    said = page.locator("[data-chart=reward]").get_attribute("aria-label")
    assert "A cross stands where a run failed: a-2 failed." in said
    switch(page, "input[data-run='a-2']")
    assert "a-2 failed" not in names(page)


def test_charts_that_compare_variants(show):
    stairs = [{"x": [0, 20, 30], "y": [0, 0.5, 0.5], "low": [None, 0.1, 0.1], "high": [None, 0.9, 0.9]}, None]
    curve = {"x": [0, 0.5, 1], "y": [1, 0.4, 0], "low": [1, 0.2, 0], "high": [1, 0.6, 0]}
    parts = {"x": [5, 15], "y": [0.1, 0.2], "low": [-0.1, 0.1], "high": [0.3, 0.3]}
    texts = {"title": "A title", "note": "A note."}
    page = show(
        PAYLOAD
        | {
            "reached": texts | {"stairs": {"step": stairs}},
            "profiles": texts | {"curves": [curve, curve]},
            "along": [texts | {"id": "along", "margin": 0.05, "curves": [parts, None]}],
        }
    )
    assert values(page, "AdamS", "reached") == ([0, 20, 30], [0, 0.5, 0.5])
    assert names(page, "reached") == ["AdamS"]
    assert page.locator("[data-chart=reached]").get_attribute("aria-label") == "A title, by step: AdamS 50 % at 30."
    assert names(page, "profiles") == ["AdamS band", "AdamW band", "AdamS", "AdamW"]
    assert values(page, "AdamS band", "profiles") == ([0, 0.5, 1, 1, 0.5, 0], [1, 0.6, 0, 0, 0.2, 1])
    assert values(page, "AdamS", "along") == ([5, 15], [0.1, 0.2])
    bars = page.evaluate("document.querySelector('[data-chart=along]').data[0].error_y")
    assert (bars["array"], bars["arrayminus"]) == (pytest.approx([0.2, 0.1]), pytest.approx([0.2, 0.1]))
    switch(page, "input[data-variant='0']")
    assert names(page, "along") == []
    assert names(page, "profiles") == ["AdamW band", "AdamW"]


def test_a_chart_of_one_task_has_its_runs_alone(show):
    charts = [
        {"id": f"reward/{task}", "key": "reward", "title": task, "unit": "", "note": "", "task": place}
        for place, task in enumerate(("easy", "long"))
    ]
    runs = [one | {"task": place % 2} for place, one in enumerate(PAYLOAD["runs"])]
    page = show(PAYLOAD | {"charts": charts, "runs": runs})
    assert {"a-0", "a-2", "b-1"} < set(names(page, "reward/easy"))
    assert {"a-1", "b-0"} < set(names(page, "reward/long"))
    assert values(page, "AdamS", "reward/long") == (STEPS, [2, 3, 4, 5])


def test_a_wide_table_and_a_flat_line_fit_the_sheet(show):
    payload = changed(runs=[run("a-0", 0, 0, [0.1, 0.1, 0.1 + 1e-17])])
    verdict = payload["tables"]["verdict"]
    verdict["columns"] += [{"key": f"more {place}", "label": f"more {place}", "kind": "number"} for place in range(40)]
    page = show(payload)
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    box = "document.querySelector('#table-verdict .scroll')"
    assert page.evaluate(f"{box}.scrollWidth <= {box}.clientWidth + 1")
    assert page.evaluate("document.querySelector('[data-chart=reward]').layout.yaxis.range") == pytest.approx(
        [0.05, 0.15]
    )
    assert page.locator(".variant details[open]").count() == 0
    page.evaluate("dispatchEvent(new Event('afterprint'))")
    assert page.locator(".variant details[open]").count() == 1
    assert page.evaluate(f"{box}.scrollWidth > {box}.clientWidth")


def test_metric_measured_now_and_then_is_joined(show):
    page = show()
    assert values(page, "a-0", "eval/accuracy") == ([2, 4], [0.5, 0.75])
    drawn = page.locator("[data-chart='eval/accuracy']").evaluate(
        "div => div.data.filter(trace => !trace.name.endsWith('band')).map(trace => trace.mode)"
    )
    assert set(drawn) == {"lines+markers"}


def test_run_switched_off_leaves_every_chart_and_the_mean(show):
    page = show()
    before = {chart: names(page, chart) for chart in ("reward", "eval/accuracy")}
    switch(page, "input[data-run='a-2']")
    for chart, was in before.items():
        assert names(page, chart) == [name for name in was if name != "a-2"]
    assert values(page, "AdamS") == (STEPS, [1, 2, 3, 4])
    assert values(page, "AdamS band")[1][0] == pytest.approx(1 + 12.7)
    variant = page.locator("input[data-variant='0']")
    assert variant.evaluate("box => box.indeterminate")
    switch(page, "input[data-run='a-1']")
    # One run has no band, and is its own mean.
    assert names(page) == ["AdamW band", "a-0", "b-0", "b-1", "AdamS", "AdamW"]
    assert values(page, "AdamS") == (STEPS, [0, 1, 2, 3])
    variant.click()
    settle(page)
    assert names(page, "reward") == before["reward"]


def test_variant_switched_off_takes_its_runs(show):
    page = show()
    switch(page, "input[data-variant='0']")
    for chart in ("reward", "eval/accuracy"):
        assert not {"a-0", "a-1", "a-2", "AdamS", "AdamS band"} & set(names(page, chart))
    assert [page.locator(f"input[data-run='a-{seed}']").is_checked() for seed in range(3)] == [False] * 3
    assert page.locator("[data-chart='memory/optimizer state'] .ytick").all_text_contents() == ["AdamW"]
    switch(page, "input[data-variant='0']")
    assert "a-1" in names(page)


def test_means_and_single_seeds_can_be_hidden(show):
    page = show()
    switch(page, "#mean")
    assert names(page) == ["a-0", "a-1", "a-2", "b-0", "b-1"]
    switch(page, "#mean")
    switch(page, "#seeds")
    assert names(page) == ["AdamS band", "AdamW band", "AdamS", "AdamW"]


def test_other_axis_takes_the_mean_on_a_common_grid(show):
    payload = changed(runs=[run("a-0", 0, 0, [0.0, 1.0, 2.0]), run("a-1", 0, 1, [4.0, 4.0, 4.0])])
    payload["runs"][0]["x"]["tokens"] = [0, 10, 40]
    payload["runs"][1]["x"]["tokens"] = [5, 20, 30]
    del payload["runs"][1]["x"]["seconds"]
    page = show(payload)
    switch(page, "input[value='tokens']")
    assert values(page, "a-0") == ([0, 10, 40], [0, 1, 2])
    x, y = values(page, "AdamS")
    assert len(x) <= 200
    assert (x[0], x[-1]) == (5, 30)
    # a-0 is at 0.5 after 5 tokens and at 1 + 20 / 30 after 30; a-1 is at 4 throughout.
    assert (y[0], y[-1]) == pytest.approx((2.25, (4 + 1 + 2 / 3) / 2))
    at = min(range(len(x)), key=lambda place: abs(x[place] - 20))
    assert y[at] == pytest.approx((4 + 1 + (x[at] - 10) / 30) / 2)
    switch(page, "input[value='seconds']")
    assert names(page) == ["a-0", "AdamS"]
    switch(page, "input[value='step']")
    assert values(page, "AdamS") == ([1, 2, 3], [2, 2.5, 3])


def test_smoothing_is_a_trailing_mean_of_each_run(show):
    page = show(changed(smoothing=2))
    assert values(page, "a-2")[1] == [4, 6, 7, 8]
    assert values(page, "AdamS")[1] == pytest.approx([2, 3, 4, 5])
    # The gap stays; what follows it is the mean of what there is in its window.
    assert values(page, "b-0")[1] == [1, 1.5, None, 3, 3.5]
    page.locator("#smoothing").focus()
    page.keyboard.press("ArrowRight")
    settle(page)
    assert page.locator("#window").text_content() == "mean of 3 points"
    assert values(page, "a-2")[1] == [4, 6, 6, 8]
    assert values(page, "b-0")[1] == [1, 1.5, None, 2.5, 3.5]
    page.keyboard.press("Home")
    settle(page)
    assert values(page, "a-2")[1] == [4, 8, 6, 10]


def test_zeros_are_gaps_on_a_log_axis(show):
    page = show()
    switch(page, "#log")
    assert values(page, "a-0") == (STEPS, [None, 1, 2, 3])
    assert page.evaluate("document.querySelector('.plot').layout.yaxis.type") == "log"
    assert min(value for value in values(page, "AdamS band")[1] if value is not None) > 0
    switch(page, "#log")
    assert values(page, "a-0") == (STEPS, [0, 1, 2, 3])


def test_chart_without_values_says_so(show):
    page = show(changed(runs=[run("a-0", 0, 0, [0.0, 0.0]), run("a-1", 0, 1, [-1.0, 0.0])]))
    switch(page, "#log")
    assert "no value above 0" in page.locator("[data-chart=reward]").text_content()
    switch(page, "input[data-variant='0']")
    assert "no values here" in page.locator("[data-chart=reward]").text_content()
    assert page.locator("[data-chart=reward]").get_attribute("aria-label") == "Reward by step: no values."


def test_charts_are_told_in_words_and_looks_are_in_the_list(show):
    page = show()
    said = page.locator("[data-chart=reward]").get_attribute("aria-label")
    assert said.startswith("Reward by step: a line for each of 5 runs, with mean and band of each variant.")
    assert "AdamS ends at 6; AdamW ends at 3." in said
    bars = page.locator("[data-chart=phases]").get_attribute("aria-label")
    assert "AdamS: rollout 2 s, update 1 s; AdamW: rollout 3 s, update not known." in bars
    # Peak memory is known of no variant.
    assert page.locator("[data-chart^='memory/']").count() == 1
    lines = page.locator(".swatch line")
    assert [lines.nth(place).get_attribute("stroke") for place in range(2)] == ["rgb(0,114,178)", "rgb(0,0,0)"]
    assert lines.nth(0).get_attribute("stroke-dasharray") != lines.nth(1).get_attribute("stroke-dasharray")


def column(page, place):
    return page.locator(f"#table-verdict tbody tr > :nth-child({place})").all_text_contents()


def test_table_sorts_both_ways_with_the_missing_last(show):
    page = show()
    gain = page.locator("#table-verdict thead th").nth(1)
    assert gain.get_attribute("aria-sort") is None
    gain.locator("button").click()
    assert column(page, 2) == ["-2", "9 ± 1", "10.5", "-"]
    assert gain.get_attribute("aria-sort") == "ascending"
    gain.locator("button").click()
    assert column(page, 2) == ["10.5", "9 ± 1", "-2", "-"]
    assert gain.get_attribute("aria-sort") == "descending"
    word = page.locator("#table-verdict thead th").nth(2)
    word.locator("button").click()
    assert column(page, 3) == ["<i>open</i>", "better", "worse", "-"]
    word.locator("button").click()
    assert column(page, 3) == ["worse", "better", "<i>open</i>", "-"]
    assert gain.get_attribute("aria-sort") is None


def tab_to(page, selector):
    for _ in range(60):
        page.keyboard.press("Tab")
        if page.evaluate("selector => document.activeElement.matches(selector)", selector):
            return
    raise AssertionError(f"Tab does not lead to {selector}")


def test_keyboard_alone_is_enough(show):
    page = show()
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    assert page.locator(".skip").bounding_box()["y"] >= 0
    tab_to(page, "input[data-run='a-2']")
    assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    page.keyboard.press("Space")
    settle(page)
    assert "a-2" not in names(page)
    tab_to(page, "#table-verdict thead th:first-child button")
    page.keyboard.press("Enter")
    page.keyboard.press("Enter")
    assert column(page, 1) == ["time", "steps", "last", "area"]


def test_what_a_model_wrote_is_shown_and_not_run(show):
    page = show()
    assert page.evaluate("window.pwned") is None
    shown = page.locator("#samples pre.completion").first.text_content()
    assert shown == (
        "</script><script>window.pwned=1</script><!--<img src=x onerror=window.pwned=1> "
        "U+202Egnp.exe U+0000 U+D800 &amp; end"
    )
    assert page.locator("#samples details").count() == 2
    assert page.locator("#samples details[open]").count() == 1


def test_hostile_names_are_shown_and_not_run(show):
    payload = changed(title=HOSTILE, headline=[HOSTILE], notices=[HOSTILE], footer=HOSTILE, commands=[HOSTILE])
    payload["axes"]["step"] = payload["variants"][0]["label"] = payload["runs"][0]["name"] = HOSTILE
    payload["charts"][0] |= {"title": HOSTILE, "note": HOSTILE, "unit": HOSTILE}
    payload["memory"][0]["label"] = payload["phases"]["names"][0] = HOSTILE
    payload["tables"]["verdict"] |= {"title": HOSTILE, "rows": [{"metric": {"text": HOSTILE, "class": '"><b'}}]}
    payload["environment"] = [{"name": HOSTILE, "rows": [[HOSTILE, HOSTILE]]}]
    page = show(payload)
    page.locator("[data-chart=reward] .nsewdrag").hover(position={"x": 20, "y": 100})
    assert page.evaluate("window.pwned") is None
    assert page.locator("img").count() == 0
    assert page.locator("#variants .label").first.text_content().startswith("</script><script>")
    assert (
        page.locator("main > .headline").text_content().startswith("</script><script>window.pwned=1</script><!--<img")
    )


def test_data_cannot_end_its_element():
    payload = changed()
    payload["runs"][0]["name"] = HOSTILE + "\u2028"
    text = render_page(payload)
    held = re.search(r'<script type="application/json" id="data">(.*?)</script>', text, re.DOTALL)[1]
    assert not set("<>&\u2028") & set(held)
    assert json.loads(held)["runs"][0]["name"] == HOSTILE + "\u2028"
    assert "samples" not in json.loads(held)


def test_number_that_is_none_is_refused():
    payload = changed()
    payload["runs"][0]["y"]["reward"][0] = float("nan")
    with pytest.raises(ValueError, match="not JSON compliant"):
        render_page(payload)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_phone_does_not_scroll_sideways(show, scheme):
    payload = changed(commands=["rl-posttrain report " + "runs/a-0 " * 30 + "x" * 300])
    verdict = payload["tables"]["verdict"]
    verdict["columns"] += [{"key": f"more {place}", "label": f"more {place}", "kind": "number"} for place in range(12)]
    payload["runs"][0]["name"] = "a-run-of-a-very-long-name-" * 5
    payload["variants"][0]["label"] = "learning-rate=0.00001," * 6
    payload["samples"][0]["early"]["rows"][0]["completion"] = "9" * 3000
    page = show(payload, viewport={"width": 390, "height": 844}, color_scheme=scheme, has_touch=True, is_mobile=True)
    page.evaluate("document.querySelectorAll('details').forEach(one => { one.open = true; })")
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    box = "#table-verdict .scroll"
    assert page.locator(box).evaluate("box => box.scrollWidth > box.clientWidth")
    charts = [page.locator("figure.chart").nth(place).bounding_box() for place in range(2)]
    assert charts[0]["x"] == charts[1]["x"]


def test_dark_screens_show_black_lines_and_paper_is_light(show):
    page = show(color_scheme="dark")
    stroke = "document.querySelectorAll('.swatch line')[1].getAttribute('stroke')"
    assert min(map(int, re.findall(r"\d+", page.evaluate(stroke)))) > 90
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(20, 23, 27)"
    page.emulate_media(color_scheme="light")
    black = page.locator(".swatch line[stroke='rgb(0,0,0)']")
    black.wait_for(state="attached")
    page.emulate_media(color_scheme="dark")
    black.wait_for(state="detached")
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert page.evaluate(stroke) == "rgb(0,0,0)"
    assert page.locator("#samples details:not([open])").count() == 0
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    page.evaluate("dispatchEvent(new Event('afterprint'))")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(20, 23, 27)"
    assert page.locator("#samples details:not([open])").count() == 1


def test_command_is_copied(show):
    page = show(permissions=["clipboard-read", "clipboard-write"])
    page.locator("button.copy").click()
    page.locator("button.copy", has_text="Copied").wait_for()
    assert page.evaluate("navigator.clipboard.readText()") == PAYLOAD["commands"][0]
    bare = show()
    bare.add_init_script("Object.defineProperty(navigator, 'clipboard', {value: undefined})")
    bare.reload()
    settle(bare)
    assert bare.locator("button.copy").is_hidden()


def test_tables_and_samples_need_no_javascript(show):
    page = show(java_script_enabled=False)
    assert page.locator("#table-verdict .good").is_visible()
    assert page.locator("#samples pre.completion").first.is_visible()
    assert page.get_by_text("All tables can be read without it.").is_visible()
    assert not page.locator(".controls").is_visible()
    assert page.locator("#table-verdict tbody th[scope=row]").count() == 4


def test_page_of_little_has_no_empty_sections(show):
    page = show({"title": "Nothing yet"})
    assert page.locator("h2:visible").count() == 0
    assert page.locator("nav li").count() == 0


def test_page_of_many_runs_is_small_and_works(show):
    charts = [{"id": f"metric/{place}", "title": f"Metric {place}", "unit": "", "note": ""} for place in range(12)]
    points = range(400)
    runs = [
        {
            "name": f"run-{number}",
            "variant": number % 6,
            "seed": number // 6,
            "state": "finished",
            "x": {"step": list(points), "seconds": [point * 1.2345678901 + number / 7 for point in points]},
            "y": {chart["id"]: [(point * 7919 + number) % 1000 / 997 for point in points] for chart in charts},
        }
        for number in range(60)
    ]
    variants = [{"label": f"variant {place}", "colour": "#0072b2", "dash": "dot"} for place in range(6)]
    payload = {"title": "Many", "axes": {"step": "step"}, "charts": charts, "variants": variants, "runs": runs}
    assert len(render_page(payload).encode()) < 10_000_000
    page = show(payload)
    # The lines of so many runs are drawn when the reader asks for them.
    assert names(page, "metric/0") == [f"variant {place}" for place in range(6)]
    switch(page, "#seeds")
    page.locator(".variant summary").first.click()
    switch(page, "input[data-run='run-0']")
    for chart in charts:
        assert "run-0" not in names(page, chart["id"])
        assert "run-6" in names(page, chart["id"])


def test_a_page_of_runs_that_go_on_says_how_old_it_is_and_loads_itself_again(show, tmp_path):
    now = time.time()
    page = show(PAYLOAD | {"written": now - 90, "reload_s": 6})
    assert "Runs go on. This page was written at" in page.inner_text("#age")
    age = page.wait_for_selector("#age output:not(:empty)").inner_text()
    assert 90 <= int(age.removeprefix(", ").removesuffix(" s ago")) < 120 or age.endswith("minutes ago")
    path = tmp_path / "report.html"
    path.write_text(render_page(PAYLOAD | {"title": "Written again"}), encoding="utf-8")
    page.wait_for_selector("h1:has-text('Written again')")
    assert page.query_selector("#age") is None
    assert show.troubles == []


def test_a_page_is_not_loaded_again_where_its_box_is_off(show, tmp_path):
    page = show(PAYLOAD | {"written": time.time(), "reload_s": 1})
    page.uncheck("#age input")
    (tmp_path / "report.html").write_text(render_page(PAYLOAD | {"title": "Written again"}), encoding="utf-8")
    page.wait_for_timeout(2500)
    assert page.title() == PAYLOAD["title"]
    page.reload()
    assert page.title() == "Written again"
