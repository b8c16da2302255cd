"""The pictures of docs/looking.md and the README, taken of a run's report in a headless Chromium.

    python docs/screenshots.py [RUN]

RUN is by default runs/quickstart, made if it is not there. The tree that is shown is one in which a fork told something.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from pathlib import Path
from urllib.parse import quote

from playwright.sync_api import Page, sync_playwright

from spark_rl import load_forest
from spark_rl.cli import main as spark_rl
from spark_rl.runs.forests import iterations
from spark_rl.types import Tree

IMAGES = Path(__file__).parent / "images"
FLAGS = ["--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"]


def telling(run: Path) -> tuple[int, Tree, int]:
    """The latest tree of moderate size with a fork of unlike ends, and the first step that followed the fork."""
    for iteration in reversed(iterations(run)):
        for tree in load_forest(run, iteration):
            children, won = tree.children(), won_below(tree)
            for fork in tree.forks:
                ends = {won[child] > 0 for child in children[fork.node]} if fork.node is not None else set[bool]()
                if len(ends) == 2 and fork.node is not None and len(tree.nodes) < 90:
                    return iteration, tree, children[fork.node][0]
    raise SystemExit(f"{run} has no tree in which a fork told something")


def won_below(tree: Tree) -> list[int]:
    """For each step, how many trajectories through it won."""
    won = [0] * len(tree.nodes)
    for leaf in tree.leaves():
        for index in tree.trajectory(leaf):
            won[index] += tree.nodes[leaf].success
    return won


def shoot(page: Page, name: str, selector: str, pad: int = 8) -> None:
    """A picture of an element with a margin."""
    page.locator(selector).first.scroll_into_view_if_needed()
    page.wait_for_timeout(600)
    box = page.locator(selector).first.bounding_box()
    assert box is not None
    top = max(0, box["y"] - pad)
    height = min(box["height"] + 2 * pad, page.viewport_size["height"] - top)  # type: ignore[index]
    page.screenshot(path=IMAGES / name, clip={"x": 0, "y": top, "width": 1280, "height": height})
    print(IMAGES / name)


def main(run: Path) -> None:
    """Take all pictures."""
    if not run.exists():
        spark_rl(["quickstart", "--out", str(run)])
    iteration, tree, node = telling(run)
    place = f"#run=0&iteration={iteration}&task={quote(tree.task.id, safe='')}&node={node}"
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        spark_rl(["report", str(run), "--out", f"{folder}/report.html", "--quiet"])
        address = Path(folder, "report.html").as_uri() + place
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=FLAGS)
        for scheme, names in (("light", ("curves", "tree")), ("dark", ("steps",))):
            page = browser.new_page(viewport={"width": 1280, "height": 820}, color_scheme=scheme, reduced_motion="reduce")
            page.goto(address)
            page.get_by_test_id("siblings").wait_for()
            for name in names:
                if name == "steps":
                    page.get_by_test_id("layout").select_option("steps")
                shoot(page, f"{name}.png", "#curves" if name == "curves" else "#trees")
            page.close()
        browser.close()


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "runs/quickstart"))
