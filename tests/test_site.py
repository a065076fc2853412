"""The website: every page is whole, by itself, and can be read by everybody."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
import yaml
from axe_core_python.sync_playwright import Axe
from browser import launched_without_hosts
from picture import IMAGES, record_run
from playwright.sync_api import Browser, Page
from selectolax.lexbor import LexborHTMLParser

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "notebooks" / "tools"))
import build  # noqa: E402

LESSONS = sorted((ROOT / "notebooks").glob("[0-9]*.ipynb"))


def sphinx(course: Path, folder: Path) -> None:
    """Make the website of a course as ``make site`` does."""
    makefile = (ROOT / "Makefile").read_text("utf-8")
    words = re.search(r"^site:.*\n\t\$\(BIN\)/python (.*)$", makefile, re.M)[1].split()
    words[words.index("build/doctrees")] = str(folder / "doctrees")
    command = [sys.executable, *words[:-1], str(folder / "site")]
    done = subprocess.run(command, cwd=course, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("website")
    sphinx(ROOT, folder)
    return folder / "site"


@pytest.fixture(scope="module")
def pages(site) -> dict[Path, LexborHTMLParser]:
    paths = [path for path in site.rglob("*.html") if "_static" not in path.parts]
    return {path: LexborHTMLParser(path.read_text("utf-8")) for path in paths}


def addresses(page: LexborHTMLParser, *tags: str) -> Iterator[str]:
    for tag in page.css(",".join(tags)):
        for name in ("src", "href"):
            if name in tag.attributes:
                yield tag.attributes[name] or ""  # None where it is empty


# ------------------------------------------------------------------------ what is there


def test_nothing_is_loaded_from_elsewhere(pages, site) -> None:
    for path, page in pages.items():
        for address in addresses(page, "script", "link", "img", "iframe", "source"):
            assert not urlsplit(address).netloc, f"{path.name}: {address}"
    for path in [*site.rglob("*.css")]:
        found = re.findall(r"url\([\"']?(?:https?:)?//[^)]*", path.read_text("utf-8"))
        assert not found, path


def test_every_link_leads_somewhere(pages, site) -> None:
    anchors = {
        path: {tag.attributes["id"] for tag in page.css("[id]")}
        | {tag.attributes["name"] for tag in page.css("a[name]")}
        for path, page in pages.items()
    }
    checked = 0
    for path, page in pages.items():
        for address in addresses(page, "a", "link", "img", "script"):
            parts = urlsplit(address)
            if parts.scheme or parts.netloc:
                continue
            target = (path.parent / unquote(parts.path)).resolve()
            target = target if parts.path else path
            assert target.exists(), f"{path.relative_to(site)}: {address}"
            if parts.fragment and target in anchors:
                assert unquote(parts.fragment) in anchors[target], f"{path}: {address}"
            checked += 1
    assert checked > 1000


def test_every_lesson_has_its_page_solution_and_notebook(pages, site) -> None:
    front = pages[site / "index.html"]
    for path in LESSONS:
        page = site / "notebooks" / f"{path.stem}.html"
        links = set(addresses(pages[page], "a"))
        assert {f"solutions/{path.stem}.html", path.name} <= links
        assert (site / "notebooks" / path.name).read_bytes() == path.read_bytes()
        solution = site / "notebooks" / "solutions" / f"{path.stem}.html"
        assert f"../{path.stem}.html" in set(addresses(pages[solution], "a"))
        titles = [pages[p].css_first("title").text() for p in (page, solution)]
        assert titles[1].startswith(f"{titles[0].partition(' —')[0]} (solution)")
        assert f"notebooks/{path.stem}.html" in set(addresses(front, "a"))
    for name in ("glossary", "teaching/INSTRUCTOR", "teaching/classroom"):
        assert site / "notebooks" / f"{name}.html" in pages


def test_every_figure_says_what_it_shows(pages, site) -> None:
    for path in LESSONS:
        page = pages[site / "notebooks" / f"{path.stem}.html"]
        cells = json.loads(path.read_text("utf-8"))["cells"]
        outputs = [output for cell in cells for output in cell.get("outputs", [])]
        stored = [
            output["metadata"]["image/png"]["alt"]
            for output in outputs
            if "image/png" in output.get("data", {})
        ]
        images = page.css("div.cell_output img")
        shown = [image.attributes["alt"] for image in images]
        assert [" ".join(alt.split()) for alt in shown] == [
            " ".join(alt.split()) for alt in stored
        ]
    for page in pages.values():
        for image in page.css("img"):
            assert len(image.attributes.get("alt") or "") > 10, image.html


def test_the_moving_picture_is_a_run_of_this_course() -> None:
    text = (IMAGES / "run.svg").read_text("utf-8")
    stored = json.loads(re.search("<metadata>(.*)</metadata>", text)[1])
    for old, new in zip(stored, record_run(), strict=True):
        assert abs(old.pop("accuracy") - new.pop("accuracy")) <= 0.02
        assert old == new


# ------------------------------------------------------------- with and without address


def test_without_an_address_nothing_leads_to_one(pages) -> None:
    if build.is_published():
        pytest.skip("it is published")
    for page in pages.values():
        for address in addresses(page, "a", "img", "link"):
            assert "colab.research" not in address and "OWNER" not in address


def test_once_published_a_page_opens_in_colab(tmp_path) -> None:
    course = tmp_path / "course"
    ignored = shutil.ignore_patterns(".git", ".venv", "build", "[0-9][1-9]_*", "10_*")
    shutil.copytree(ROOT, course, ignore=ignored)
    settings = course / "pyproject.toml"
    text = settings.read_text("utf-8")
    text = re.sub(r"github\.com/[\w/-]+", "github.com/ada/fl", text)
    text = re.sub(r"(?m)^release = .*$", 'release = "v2.0"', text)
    settings.write_text(text, "utf-8")
    command = [sys.executable, "-m", "sphinx", "-q", "-b", "html"]
    command += ["-c", "notebooks/tools/website", ".", str(tmp_path / "site")]
    subprocess.run(command, cwd=course, capture_output=True, check=True)
    (name,) = [path.stem for path in LESSONS if path.name.startswith("00")]
    page = (tmp_path / "site" / "notebooks" / f"{name}.html").read_text("utf-8")
    address = "https://colab.research.google.com/github/ada/fl/blob/v2.0/notebooks/"
    assert f'href="{address}{name}.ipynb"' in page
    front = (tmp_path / "site" / "index.html").read_text("utf-8")
    assert 'href="https://github.com/ada/fl/tree/v2.0/notebooks/flower_app"' in front


@pytest.mark.parametrize("has_moved", [False, True])
def test_a_release_stamps_its_own_address(has_moved, tmp_path) -> None:
    def git(*words: str, cwd: Path = ROOT) -> str:
        done = subprocess.run(
            ["git", "-c", "user.name=a", "-c", "user.email=a@b", *words],
            cwd=cwd,
            capture_output=True,
            text=True,
            check=True,
        )
        return done.stdout.strip()

    hub, clone = tmp_path / "hub", tmp_path / "clone"
    git("clone", "-q", "--bare", str(ROOT), str(hub))
    git("branch", "-f", "main", git("rev-parse", "HEAD"), cwd=hub)
    git("clone", "-q", "--branch", "main", str(hub), str(clone))
    # One lesson will do: tests/test_publishing.py stamps them all.
    others = [f"notebooks/source/{path.stem}.py" for path in LESSONS[1:]]
    git("rm", "-q", *others, cwd=clone)
    git("commit", "-qm", ".", cwd=clone)
    git("tag", "-f", "v3.0", cwd=clone)
    if has_moved:
        (clone / ".github/workflows/ci.yml").rename(clone / ".github/workflows/new.yml")
        git("add", "-A", cwd=clone)
        git("commit", "-qm", ".", cwd=clone)
    git("push", "-qf", "origin", "main", "v3.0", cwd=clone)
    before = git("rev-parse", "main", cwd=hub)
    git("checkout", "-q", "v3.0", cwd=clone)
    publish = release_workflow()["jobs"]["publish"]
    steps = {s.get("name"): s["run"] for s in publish["steps"] if "run" in s}
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    given = {"REPO": "ada/fl", "TAG": "v3.0", "BRANCH": "main"}
    assert given.keys() == publish["env"].keys()
    done = subprocess.run(
        ["bash", "-e"],
        cwd=clone,
        env={**os.environ, **given, "PATH": path},
        input="\n".join(steps[n] for n in ("Stamp", "Move the tag", "Move the branch")),
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    settings = git("show", "v3.0:pyproject.toml", cwd=hub)
    assert 'Repository = "https://github.com/ada/fl"' in settings
    assert 'release = "v3.0"' in settings
    assert "github/ada/fl/blob/v3.0/" in git("show", "v3.0:README.md", cwd=hub)
    tag, main = (git("rev-parse", name, cwd=hub) for name in ("v3.0", "main"))
    assert main == (before if has_moved else tag)
    assert has_moved == ("::warning::Only the tag has the links" in done.stdout)
    # GitHub takes no tag from a workflow whose own workflows are on no branch.
    assert git("diff", "main", "v3.0", "--", ".github/workflows", cwd=hub) == ""


def release_workflow() -> dict:
    return yaml.safe_load((ROOT / ".github/workflows/release.yml").read_text())


def test_a_release_publishes_the_website_from_the_default_branch(tmp_path) -> None:
    # GitHub's environment for the website lets in the default branch, and no tag. A job
    # that names it and runs on a release's tag is refused before its first step.
    start, publish = release_workflow()["jobs"].values()
    assert start["if"] == "github.event_name == 'release'"
    assert "environment" not in start
    assert publish["environment"]["name"] == "github-pages"
    assert publish["if"] == "github.event_name == 'workflow_dispatch'"
    gh = tmp_path / "gh"
    gh.write_text('#!/bin/sh\nprintf "%s|" "$@" > "$0.said"\n')
    gh.chmod(0o700)
    (step,) = start["steps"]
    given = {"REPO": "ada/fl", "TAG": "v3.0", "BRANCH": "trunk"}
    assert given.keys() <= step["env"].keys()
    path = os.pathsep.join([str(tmp_path), os.environ["PATH"]])
    environment = {**os.environ, **given, "PATH": path}
    subprocess.run(["bash", "-e", "-c", step["run"]], env=environment, check=True)
    said = "workflow|run|release.yml|--repo|ada/fl|--ref|trunk|--raw-field|tag=v3.0|"
    assert (tmp_path / "gh.said").read_text() == said
    # What it hands over is what the other job reads. (PyYAML takes "on" for True.)
    assert list(release_workflow()[True]["workflow_dispatch"]["inputs"]) == ["tag"]
    assert "${{ inputs.tag }}" in str(publish) and "event.release" not in str(publish)


# ------------------------------------------------------------------------- in a browser

# Thousands of coloured words: the colours are measured on their first use only.
FEWER = """colours => {
    const seen = new Set();
    for (const token of document.querySelectorAll('.highlight span')) {
        if (token.children.length) continue;
        if (seen.has(token.className) || !colours) token.replaceWith(token.textContent);
        else seen.add(token.className);
    }
    document.body.normalize();
}"""
# A table or a line of code that is cut, and can't be scrolled to.
CUT = """() => [...document.querySelectorAll('article table, article pre, article img')]
    .filter(part => {
        let box = part;
        while (box && box.tagName !== 'ARTICLE') {
            if (getComputedStyle(box).overflowX === 'auto') return false;
            box = box.parentElement;
        }
        const edge = box.getBoundingClientRect().right;
        return part.getBoundingClientRect().right > edge + 1;
    }).map(part => part.outerHTML.slice(0, 200))"""
# A lesson's line of code has 79 columns at most, and its end is seen without scrolling.
LONG = """() => [...document.querySelectorAll('.cell_input pre')]
    .filter(code => code.scrollWidth > code.clientWidth).map(code => code.innerText)"""
# Nothing but its own card lies behind a figure.
BEHIND = """() => [...document.querySelectorAll('article img')]
    .map(image => getComputedStyle(image))
    .filter(style => style.backgroundColor !== 'rgba(0, 0, 0, 0)'
        || style.filter !== 'none').length"""
# What is cut on paper, where nothing scrolls.
OFF_PAPER = """() => [...document.querySelectorAll('article, article *')].filter(part =>
    part.clientWidth && part.scrollWidth > part.clientWidth + 1
    && getComputedStyle(part).overflowX !== 'visible'
).map(part => part.outerHTML.slice(0, 200))"""
# Text in a colour that white paper swallows.
PALE = """() => [...document.querySelectorAll('article *')]
    .filter(part => part.innerText && part.checkVisibility())
    .filter(part => Math.min(...getComputedStyle(part).color.match(/\\d+/g)) > 150)
    .map(part => part.outerHTML.slice(0, 200))"""


@pytest.fixture(scope="module")
def browser(tmp_path_factory) -> Iterator[Browser]:
    with launched_without_hosts(tmp_path_factory.mktemp("home")) as browser:
        yield browser


def test_every_page_can_be_read_in_both_themes(browser, site, pages) -> None:
    page = browser.new_page(
        viewport={"width": 1280, "height": 900},
        reduced_motion="reduce",  # no colours that are half-way to the next
    )
    failed = []
    page.on("requestfailed", lambda request: failed.append(request.url))
    page.on("pageerror", lambda error: failed.append(str(error)))
    # Colours are the same on all pages of a kind, and take seconds to measure. (In
    # lesson 06, what is folded has links.)
    coloured = {"index.html", "glossary.html"}
    coloured |= {f"{LESSONS[number].stem}.html" for number in (1, 6)}
    for path in pages:
        page.emulate_media(color_scheme="light")
        page.goto(path.as_uri())
        measure = path.name in coloured
        for scheme in ("light", "dark"):
            # The page follows the system, as long as its reader has chosen nothing.
            page.emulate_media(color_scheme=scheme)
            page.wait_for_function(
                f"document.documentElement.dataset.theme === '{scheme}'"
            )
            if page.query_selector("article"):
                assert page.evaluate(CUT) == [], path
                assert page.evaluate(LONG) == [], path
                assert page.evaluate(BEHIND) == 0, path
            # A solution has its lesson's texts.
            if path.parent.name != "solutions" and (measure or scheme == "light"):
                assert barriers(page, measure) == [], f"{path} in {scheme}"
    assert failed == []
    page.close()


def test_a_search_finds_each_lesson_once(browser, site) -> None:
    page = browser.new_page()
    page.goto(f"{(site / 'search.html').as_uri()}?q=dirichlet")
    found = page.locator("#search-results li a")
    page.wait_for_function("document.querySelector('.search-summary')?.innerText")
    links = [link.get_attribute("href") for link in found.all()]
    page.close()
    pages = [urlsplit(link).path for link in links]
    assert f"notebooks/{LESSONS[2].stem}.html" in pages
    assert len(pages) == len({*pages}) and not any("solutions" in p for p in pages)


def test_a_page_is_as_wide_as_a_phone(browser, site) -> None:
    page = browser.new_page(viewport={"width": 390, "height": 844})
    for name in ("index", f"notebooks/{LESSONS[7].stem}", "notebooks/glossary"):
        page.goto((site / f"{name}.html").as_uri())
        assert page.evaluate("document.documentElement.scrollWidth") == 390, name
    page.close()


@pytest.mark.parametrize("width", [390, 1000, 1280])
def test_the_title_leaves_room_for_the_search(width, browser, site) -> None:
    page = browser.new_page(viewport={"width": width, "height": 844})
    page.goto((site / "index.html").as_uri())
    title = page.locator(".bd-header .logo__title").bounding_box()
    search = page.locator(".bd-header .search-button-field:visible").bounding_box()
    assert title["x"] + title["width"] <= search["x"]
    page.close()


def test_what_is_printed_is_whole_and_dark_on_white(browser, site) -> None:
    # An A4 sheet, less margins of a centimetre.
    page = browser.new_page(viewport={"width": 718, "height": 1000})
    for scheme in ("light", "dark"):
        page.emulate_media(media="print", color_scheme=scheme)
        for name in ("index", f"notebooks/{LESSONS[7].stem}"):
            page.goto((site / f"{name}.html").as_uri())
            assert page.evaluate(OFF_PAPER) == [], name
            assert page.evaluate(PALE) == [], (name, scheme)
            assert not page.is_visible(".bd-header")
    page.close()


def barriers(page: Page, measure: bool) -> list[tuple[str, list[str]]]:
    """Return what keeps some people from a page, as axe finds it.

    Contrast is of level AA: without measuring it, what level A asks for is left.
    """
    page.evaluate(FEWER, measure)
    levels = ["wcag2a", "wcag21a"] + ["wcag2aa", "wcag21aa"] * measure
    found = Axe().run(page, options={"runOnly": levels, "resultTypes": ["violations"]})
    return [
        (rule["id"], [node["html"] for node in rule["nodes"]])
        for rule in found["violations"]
        if rule["impact"] in ("serious", "critical")
    ]
