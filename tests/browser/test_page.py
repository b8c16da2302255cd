"""A person with a browser: opens a report without a network, reads a tree, watches a live run, uses keys only."""

from __future__ import annotations

import os
import re
import shutil
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from filelock import FileLock
from trees import draw

from spark_rl import load_forest
from spark_rl.cli import main
from spark_rl.config.recipe import Keep, Recipe
from spark_rl.environments.household import Household
from spark_rl.runs.run import Run
from spark_rl.types import Forest, Fork, Tree

playwright = pytest.importorskip("playwright.sync_api", reason="the package playwright drives the browser: make setup")

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)

pytestmark = [
    pytest.mark.slow,
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine: install the system's package chromium"),
]

QUICK = [
    "--iterations", "3", "--tasks-per-iteration", "6", "--keep.forests", "0", "--threads", "1",
    "--evaluation.levels", "L0", "L1", "--evaluation.dev-tasks", "10", "--evaluation.every", "1",
    "--env.test-tasks", "12", "--env.dev-tasks", "12",
]  # fmt: skip
"""A quickstart with the cold start of the real one and little after it."""


@pytest.fixture(scope="session")
def quickstart(tmp_path_factory) -> Path:
    """A quickstart run, made once for all workers; to be read only."""
    base = tmp_path_factory.getbasetemp()
    shared = base.parent if os.environ.get("PYTEST_XDIST_WORKER") else base
    with FileLock(str(shared / "quickstart.lock")):
        if not (shared / "quickstart" / "eval.json").exists():
            assert main(["quickstart", "--quiet", "--out", str(shared / "quickstart"), *QUICK]) == 0
    return shared / "quickstart"


@pytest.fixture(scope="session")
def report(quickstart, tmp_path_factory) -> Path:
    """Its report."""
    out = tmp_path_factory.mktemp("report") / "report.html"
    assert main(["report", str(quickstart), "--out", str(out), "--quiet"]) == 0
    return out


@pytest.fixture(scope="module")
def browser() -> Iterator:
    flags = ["--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"]
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=CHROMIUM, args=flags)
        yield browser
        browser.close()


class Tab:
    """A page, and whatever went wrong on it."""

    def __init__(self, browser, **settings) -> None:
        self.context = browser.new_context(viewport={"width": 1440, "height": 1000}, **settings)
        self.page = self.context.new_page()
        self.wrong: list[str] = []
        self.asked: list[str] = []
        self.page.on("console", lambda said: said.type in ("error", "warning") and self.wrong.append(said.text))
        self.page.on("pageerror", lambda error: self.wrong.append(str(error)))
        self.page.on("dialog", lambda dialog: (self.wrong.append(dialog.message), dialog.dismiss()))
        self.page.on("request", lambda request: self.asked.append(request.url))
        self.page.set_default_timeout(60_000)

    def offline(self, file: Path, place: str = ""):
        """Open a file; anything else that is asked for is refused."""
        self.context.set_offline(True)
        self.page.goto(file.as_uri() + place)
        self.page.get_by_test_id("chart-success").locator("canvas").wait_for()
        return self.page

    def close(self) -> None:
        self.context.close()
        assert self.wrong == []


@pytest.fixture
def tab(browser) -> Iterator[Tab]:
    tab = Tab(browser)
    yield tab
    tab.close()


def link(tree: Tree, iteration: int, node: int | None = None) -> str:
    place = f"#run=0&iteration={iteration}&task={tree.task.id.replace('/', '%2F')}"
    return place if node is None else f"{place}&node={node}"


def forked(run: Path) -> tuple[int, Tree, int]:
    """Iteration, tree, and the first child of a fork after a step, of a tree in which that step has several."""
    for iteration in (3, 2, 1):
        for tree in load_forest(run, iteration):
            for fork in tree.forks:
                if fork.node is not None and fork.at == "after":
                    return iteration, tree, tree.children()[fork.node][0]
    pytest.fail("the quickstart grew no fork at all")


# -- a report -----------------------------------------------------------------------------------------------------------


def test_a_report_opens_from_disk_without_a_network(tab, report):
    page = tab.offline(report)
    for chart in ("chart-success", "chart-dev", "chart-reward"):
        page.get_by_test_id(chart).scroll_into_view_if_needed()
        page.get_by_test_id(chart).locator("canvas").wait_for()
    assert [url for url in tab.asked if not url.startswith(("file:", "data:", "blob:"))] == []
    assert page.get_by_test_id("run-chip").count() == 1
    assert "finished" in page.locator("header, main").first.inner_text() or "finished" in page.inner_text("body")


def test_a_tree_is_read_down_to_what_its_siblings_did_instead(tab, report, quickstart):
    iteration, tree, child = forked(quickstart)
    page = tab.offline(report, link(tree, iteration, child))
    node = tree.nodes[child]
    panel = page.get_by_test_id("panel")
    playwright.expect(page.get_by_test_id("panel-action")).to_contain_text(node.action)
    playwright.expect(panel).to_contain_text(node.reasoning)
    siblings = page.get_by_test_id("siblings").get_by_test_id("sibling")
    others = [index for index in tree.children()[node.parent] if index != child]
    assert siblings.count() == len(others)
    said = siblings.first.inner_text()
    assert tree.nodes[others[0]].action in said
    siblings.first.click()
    playwright.expect(page.get_by_test_id("panel-action")).to_contain_text(tree.nodes[others[0]].action)
    assert f"node={others[0]}" in page.url


def test_a_chain_of_routine_steps_expands(tab, report):
    page = tab.offline(report)
    drawing = page.get_by_test_id("drawing")
    page.get_by_test_id("forest-slider").scroll_into_view_if_needed()
    drawing.get_by_test_id("chain").first.wait_for()
    before = drawing.get_by_test_id("step").count()
    drawing.get_by_test_id("chain").first.click()
    assert drawing.get_by_test_id("step").count() > before


def test_filters_leave_the_trees_they_name(tab, report, quickstart):
    page = tab.offline(report)
    page.get_by_test_id("forest-slider").scroll_into_view_if_needed()  # the drawing is made anew when it opens
    forest = load_forest(quickstart)
    mixed = sum(len(set(tree.returns())) > 1 for tree in forest)
    rows = page.get_by_test_id("tree-row")
    playwright.expect(rows).to_have_count(len(forest))
    page.get_by_test_id("filter-mixed").check()
    playwright.expect(rows).to_have_count(mixed)
    page.get_by_test_id("filter-mixed").uncheck()
    page.get_by_test_id("filter-forks").check()
    playwright.expect(rows).to_have_count(sum(bool(tree.forks) for tree in forest))
    page.get_by_test_id("filter-forks").uncheck()
    kind = forest.trees[0].task.kind
    page.get_by_test_id("filter-kind").select_option(kind)
    playwright.expect(rows).to_have_count(sum(tree.task.kind == kind for tree in forest))
    page.get_by_test_id("filter-kind").select_option("")
    page.get_by_test_id("search").fill(forest.trees[0].task.instruction)
    same = sum(forest.trees[0].task.instruction in tree.task.instruction for tree in forest)
    playwright.expect(rows).to_have_count(same)


def test_the_slider_goes_through_the_iterations(tab, report):
    page = tab.offline(report)
    slider = page.get_by_test_id("forest-slider")
    slider.scroll_into_view_if_needed()
    page.get_by_test_id("step").first.wait_for()
    slider.focus()
    page.keyboard.press("Home")
    playwright.expect(page.get_by_test_id("drawing")).to_have_attribute("data-iteration", "1")
    page.keyboard.press("ArrowRight")
    playwright.expect(page.get_by_test_id("drawing")).to_have_attribute("data-iteration", "2")


def test_keys_alone_reach_a_step_and_its_words(tab, report, quickstart):
    iteration, tree, _ = forked(quickstart)
    page = tab.offline(report, link(tree, iteration))
    page.get_by_test_id("step").first.wait_for()
    for _ in range(200):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.dataset.testid") == "drawing":
            break
    page.keyboard.press("Home")
    page.keyboard.press("Enter")
    playwright.expect(page.get_by_test_id("panel-action")).to_contain_text(tree.nodes[tree.children()[-1][0]].action)
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Enter")
    page.keyboard.press("/")
    assert page.evaluate("document.activeElement.dataset.testid") == "search"


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_no_serious_barrier_is_found(browser, report, quickstart, scheme):
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="the package axe-playwright-python scans")
    iteration, tree, child = forked(quickstart)
    tab = Tab(browser, color_scheme=scheme, reduced_motion="reduce")
    page = tab.offline(report, link(tree, iteration, child))
    page.get_by_test_id("siblings").wait_for()
    for layout in ("compact", "steps"):
        page.get_by_test_id("layout").select_option(layout)
        found = axe.Axe().run(page).response["violations"]
        serious = [(each["id"], each["nodes"][0]["html"]) for each in found if each["impact"] in ("serious", "critical")]
        assert serious == []
    tab.close()


def test_a_phone_shows_it_all_in_one_column(browser, report):
    tab = Tab(browser)
    tab.page.set_viewport_size({"width": 390, "height": 844})
    page = tab.offline(report)
    page.get_by_test_id("forest-slider").scroll_into_view_if_needed()  # the drawing is made anew when it opens
    page.get_by_test_id("step").first.wait_for()
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    tab.close()


# -- what models say, and what crashes leave -----------------------------------------------------------------------------

EVIL = "</script><script>window.xyzzy=1;alert(1)</script><img src=x onerror='window.xyzzy=1'>{{data}}{{script}}"


def hostile(directory: Path) -> Run:
    """Three leaves of which all words are markup."""
    run = Run.create(directory, Recipe(EVIL, Household(), iterations=5, keep=Keep(forests=0)))
    tree = draw([-1, 0, 0, -1], {1: 1.0, 2: 0.0, 3: 0.0})
    for index, node in enumerate(tree.nodes):
        tree.nodes[index] = replace(
            node,
            reasoning=EVIL,
            action=f"{index} {EVIL}",
            observation=EVIL,
            text=EVIL,
            well_formed=index != 2,
            mode="explore",
        )
    task = replace(tree.task, id=EVIL, instruction=EVIL, kind=EVIL)
    run.save_forest(Forest([replace(tree, task=task, forks=[Fork(0, 0, "after", 1)])], iteration=1))
    run.log({"iteration": 1.0, "success": 0.5, EVIL: 1.0})
    return run


def test_markup_in_a_model_s_words_is_words(tab, tmp_path):
    run = hostile(tmp_path / "run")
    assert main(["report", str(run.directory), "--out", str(tmp_path / "report.html"), "--quiet"]) == 0
    page = tab.offline(tmp_path / "report.html", "#node=2")
    page.get_by_test_id("step").first.wait_for()
    page.get_by_test_id("step").first.click()
    playwright.expect(page.get_by_test_id("panel")).to_contain_text("<script>window.xyzzy=1;alert(1)</script>")
    page.get_by_test_id("step").last.hover()
    page.wait_for_timeout(300)
    assert page.evaluate("window.xyzzy") is None
    assert page.locator("img").count() == 0


def test_what_a_crash_left_is_shown_with_a_note(tab, tmp_path):
    run = hostile(tmp_path / "run")
    with (run.directory / "metrics.jsonl").open("a") as file:
        file.write('{"iteration": 2.0, "succ')
    (run.forests / "000002.jsonl.gz").write_bytes(b"half")
    recipe = (run.directory / "recipe.json").read_text().replace('"horizon"', '"farthest"')
    (run.directory / "recipe.json").write_text(recipe)
    assert main(["report", str(run.directory), "--out", str(tmp_path / "report.html"), "--quiet"]) == 0
    page = tab.offline(tmp_path / "report.html")
    for note in ("cut short", "no checkpoint", "Its recipe cannot be used"):
        playwright.expect(page.get_by_text(re.compile(note)).first).to_be_visible()
    slider = page.get_by_test_id("forest-slider")
    slider.scroll_into_view_if_needed()
    page.get_by_test_id("step").first.wait_for()
    slider.focus()
    page.keyboard.press("End")
    playwright.expect(page.get_by_text(re.compile("not a readable forest")).first).to_be_visible()


# -- live ----------------------------------------------------------------------------------------------------------------


@pytest.fixture
def live(tmp_path) -> Iterator[tuple[Run, str]]:
    """A run in its third iteration, and the address of the page that shows it."""
    uvicorn = pytest.importorskip("uvicorn", reason='the live page needs the extra "server"')
    from spark_rl.server.app import application
    from spark_rl.server.shelf import Shelf

    run = Run.create(tmp_path / "runs" / "one", Recipe("drawn", Household(), iterations=9, keep=Keep(forests=0)))
    for iteration in (1, 2, 3):
        advance(run, iteration)
    app = application(Shelf([tmp_path / "runs"]), ["127.0.0.1"], every=0.05)
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="warning", timeout_graceful_shutdown=1))
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        thread.join(0.05)
    yield run, f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}/"
    server.should_exit = True
    thread.join()


def advance(run: Run, iteration: int) -> None:
    run.save_forest(Forest([draw([-1, 0, 0], {1: 1.0, 2: 0.0})], iteration=iteration))
    run.log({"iteration": float(iteration), "success": iteration / 10})


def test_the_live_page_follows_a_run_and_keeps_what_is_looked_at(live, tab):  # the tab is closed first
    run, address = live
    page = tab.page
    page.goto(address)
    playwright.expect(page.get_by_text("3 of 9 iterations").first).to_be_visible()
    page.get_by_test_id("forest-slider").scroll_into_view_if_needed()  # the drawing is made anew when it opens
    page.get_by_test_id("step").first.click()
    action = page.get_by_test_id("panel-action").inner_text()
    advance(run, 4)
    playwright.expect(page.get_by_text("4 of 9 iterations").first).to_be_visible()
    assert page.get_by_test_id("panel-action").inner_text() == action
    playwright.expect(page.get_by_test_id("drawing")).to_have_attribute("data-iteration", "3")
    slider = page.get_by_test_id("forest-slider")
    slider.focus()
    page.keyboard.press("End")
    playwright.expect(page.get_by_test_id("drawing")).to_have_attribute("data-iteration", "4")
    other = Run.create(run.directory.parent / "two", Recipe("drawn", Household(), iterations=9))
    advance(other, 1)
    playwright.expect(page.get_by_test_id("run-chip")).to_have_count(2)
