"""The page `/monitor` in a browser: counts, chart and its table, events, the state of the watch, and its faults."""

from __future__ import annotations

import pytest
from browser import CONTRAST, Page, complaints, events, hosts, open_browser, refused, resize, scripted_service, until

HOURS = ((3, 0, 1, 0), (12, 2, 1, 1), (41, 5, 4, 2), (0, 0, 0, 0), (8, 1, 0, 1))


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    with scripted_service() as (base, script), open_browser(tmp_path_factory.mktemp("monitor")) as driver:
        yield Page(driver, base, script)


def show(page, *answers, lang="en"):
    page.open(f"/monitor?lang={lang}", events=list(answers))


def ok(*args, **more):
    return 200, events(*args, **more), {}


def totals(page):
    return [page.text(f"#total-{name}") for name in ("worn", "incorrect", "none", "indeterminate")]


def test_totals_events_and_state(page):
    show(page, ok(True, HOURS, recent=5))
    page.says("#pulse", "The watch is running")
    assert totals(page) == ["64", "8", "6", "4"] and page.text("#source") == "rtsp://door/1"
    rows = [row.text.split() for row in page.all("#recent tbody tr")]
    assert len(rows) == 5 and rows[1] == ["10:01:00", "Incorrect", "Female", "60", "or", "over", "93%", "3.2", "s"]
    facts = [page.text(f"#fact-{name}") for name in ("running", "fps", "frames", "dropped", "since")]
    assert facts == ["Running", "14.2", "51,240", "31", "2026-11-26 07:58"]
    assert not page.one("#notice").is_displayed() and complaints(page.driver, network=True) == []


def test_bars_are_as_high_as_the_counts_and_hours_are_even(page):
    show(page, ok(True, HOURS))
    until("the chart", lambda: page.all(".column"))
    columns = page.all(".column")
    assert [column.get_attribute("data-hour")[11:13] for column in columns] == [f"{i:02d}" for i in range(1, 13)]
    heights = {
        (i, piece.get_attribute("data-state")): float(piece.get_attribute("height"))
        for i, column in enumerate(columns[7:])
        for piece in column.find_elements("css selector", ".piece")
    }
    assert len(heights) == sum(count > 0 for hour in HOURS for count in hour)
    pixel = heights[2, "worn"] / 41
    names = ("worn", "incorrect", "none", "indeterminate")
    for (i, name), height in heights.items():
        assert height == pytest.approx(HOURS[i][names.index(name)] * pixel)
    fills = {piece.get_attribute("fill") for piece in page.all(".column .piece")}
    assert fills == {f"url(#fill-{name})" for name in names}
    label = page.one(".chart").get_attribute("aria-label")
    assert label == "82 people in 12 hours; most, 52, in the hour from 10:00"
    title = page.js("return document.querySelectorAll('.column title')[9].textContent")
    assert title == "2026-11-26 10:00: 41 worn, 5 incorrect, 4 none, 2 not sure"


def test_the_table_says_the_same(page):
    show(page, ok(True, HOURS))
    page.says("#pulse", "running")
    assert not page.one("#hours").is_displayed()
    page.one("#table-box summary").click()
    rows = [row.text.split() for row in page.all("#hours tbody tr")]
    assert len(rows) == 12 and rows[0][:2] == ["11-26", "12:00"]
    assert [tuple(map(int, row[2:])) for row in rows[:5]] == list(HOURS[::-1])


def test_gridlines_are_round(page):
    page.open()
    told = page.js(
        "return import('/static/chart.js').then((m) => [0, 1, 3, 7, 52, 130, 999].map((most) => m.scale(most)))"
    )
    assert told == [[1, 1], [1, 1], [3, 1], [8, 2], [60, 20], [150, 50], [1000, 500]]


def test_hours_pass_midnight(page):
    page.open()
    hours = page.js("""
      const at = (hour) => ({hour, worn: 1, incorrect: 0, none: 0, indeterminate: 0});
      return import("/static/chart.js").then((m) => m.filled([at("2026-12-31T22:00"), at("2027-01-01T02:00")]));
    """)
    assert [hour["hour"] for hour in hours][-5:] == [
        "2026-12-31T22:00", "2026-12-31T23:00", "2027-01-01T00:00", "2027-01-01T01:00", "2027-01-01T02:00",
    ]  # fmt: skip
    assert sum(hour["worn"] for hour in hours) == 2 and len(hours) == 12


def test_nobody_yet_and_then_the_first(page):
    show(page, ok(True), ok(True, ((1, 0, 0, 0),), recent=1))
    page.says("#empty", "Nobody has been counted yet")
    assert page.text("#recent-none") == "None yet." and not page.one("#chart-box").is_displayed()
    until("the first person", lambda: totals(page) == ["1", "0", "0", "0"])
    assert not page.one("#empty").is_displayed() and len(page.all("#recent tbody tr")) == 1
    assert len(page.all(".column")) == 12


def test_a_watch_that_stands_still_and_one_that_is_unknown(page):
    show(page, ok(False, HOURS), ok(None, HOURS))
    assert "Start it again with threefold watch" in page.says("#notice", "not running")
    assert page.text("#fact-running") == "Not running" and totals(page)[0] == "64"
    page.says("#pulse", "not known")
    assert not page.one("#notice").is_displayed() and page.text("#fact-fps") == "-"


def test_a_server_that_is_gone_keeps_the_last_numbers_and_comes_back(page):
    show(page, ok(True, HOURS), (0, {}, {}), ok(True, HOURS))
    page.says("#pulse", "running")
    page.says("#pulse", "No connection")
    assert "last ones received" in page.text("#notice") and totals(page)[0] == "64"
    page.says("#pulse", "The watch is running")
    assert not page.one("#notice").is_displayed()


@pytest.mark.parametrize(
    ("answer", "pulse", "part"),
    [(refused("not_found", 404), "No events", "--events FILE"), (refused("internal", 500), "an error", "went wrong"),
     (refused("overloaded", 503, Retry_After="7"), "an error", "Trying again in 7 s.")],
)  # fmt: skip
def test_faults_say_what_to_do(page, answer, pulse, part):
    show(page, answer)
    page.says("#pulse", pulse)
    page.says("#notice", part)


def test_the_key(page):
    show(page, ok(True, HOURS))
    page.script.key = "k"
    page.driver.refresh()
    until("the dialog", lambda: page.one("#key-dialog").is_displayed())
    page.one("#key-cancel").click()
    page.says("#pulse", "A key is needed")
    page.one("#notice button").click()
    until("the dialog", lambda: page.one("#key-dialog").is_displayed())
    page.one("#key").send_keys("k\n")
    page.says("#pulse", "running")


def test_a_mask_only_watch_has_no_other_columns_and_changes_are_marked(page):
    answer = events(True, HOURS, recent=2)
    for row in answer["recent"]:
        del row["gender"], row["age_group"]
    answer["recent"][0]["kind"] = "changed"
    show(page, (200, answer, {}))
    page.says("#pulse", "running")
    heads = [head.text for head in page.all("#recent thead th") if head.is_displayed()]
    assert heads == ["Time", "Mask", "Sure", "In view"]
    assert [row.text for row in page.all("#recent td.mask")] == ["Worn changed in view", "Incorrect"]


def test_korean_in_place(page):
    show(page, ok(True, HOURS, recent=3))
    page.says("#pulse", "running")
    page.one("[data-language=ko]").click()
    page.says("#pulse", "판독이 실행 중입니다")
    label = page.one(".chart").get_attribute("aria-label")
    assert label == "12시간 동안 82명, 가장 많은 시간대는 10:00부터 1시간 동안 52명"
    assert page.all("#recent tbody tr")[0].text.split() == [
        "10:00:00",
        "올바른",
        "착용",
        "여성",
        "60세",
        "이상",
        "93%",
        "3.2초",
    ]


@pytest.mark.parametrize("lang", ["en", "ko"])
def test_width_contrast_and_hosts(page, lang):
    hosts(page.driver)
    show(page, ok(False, HOURS, recent=6), lang=lang)
    until("the chart", lambda: page.all(".column"))
    for width, dark in ((390, False), (390, True), (320, False), (1200, True), (1200, False)):
        resize(page.driver, width, dark=dark)
        assert page.overflow() <= 0, width
        texts = page.js(CONTRAST)
        assert len(texts) > 40 and [(text, ratio) for text, ratio in texts if ratio < 4.5] == []
    assert hosts(page.driver) - {"about:blank"} == {page.base}
