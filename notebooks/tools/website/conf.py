"""How Sphinx makes the course's website (``make site``) of what is stored.

It executes nothing, and its pages load nothing from elsewhere. The README is the front
page. Links and badges to GitHub and Colab are there once the course has an address.
"""

import json
import re
import shutil
import sys
from pathlib import Path

from docutils import nodes
from latex2mathml.converter import convert
from sphinx.addnodes import pending_xref
from sphinx.application import Sphinx

ROOT = Path(__file__).resolve().parents[3]
sys.path.insert(0, str(ROOT / "notebooks" / "tools"))
import build  # noqa: E402

project = "Federated learning with Flower"
html_title = project
root_doc = "README"
include_patterns = [
    "README.md",
    "CONTRIBUTING.md",
    "notebooks/*.ipynb",
    "notebooks/*.md",
    "notebooks/solutions/*.ipynb",
    "notebooks/teaching/*.md",
]
# No page is in a hidden folder, such as .venv with its 100,000 files.
exclude_patterns = [".*", "build", "**/.ipynb_checkpoints"]

extensions = ["myst_nb"]
nb_execution_mode = "off"
myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 3
html_math_renderer = "mathml"

html_theme = "pydata_sphinx_theme"
html_theme_options = {
    "navbar_center": [],
    "show_toc_level": 2,
    "secondary_sidebar_items": ["take", "page-toc"],
    "footer_start": ["licence"],
    "footer_end": [],
    "github_url": build.publication()[0] if build.is_published() else "",
    "search_bar_text": "Search the course",
}
html_sidebars = {"**": ["lessons"]}
html_copy_source = False
html_show_sphinx = False
html_static_path = ["style.css"]
html_css_files = ["style.css"]
templates_path = ["."]

PARTS = {
    "Build a federation": range(0, 6),
    "Run it for real": range(6, 8),
    "Make it good": range(8, 11),
    "Make it private": range(11, 14),
    "Make it yours": range(14, 100),
}
"""The lessons' numbers by part, as the table of contents shows them."""


def contents() -> str:
    """Return the table of contents: lessons by part, words, teaching, solutions."""
    lessons = sorted((ROOT / "notebooks").glob("[0-9]*.ipynb"))
    solutions = sorted((ROOT / "notebooks" / "solutions").glob("[0-9]*.ipynb"))
    pages = {
        name: [path for path in lessons if int(path.name[:2]) in numbers]
        for name, numbers in PARTS.items()
    }
    pages["Look up"] = sorted((ROOT / "notebooks").glob("*.md"))
    pages["Teach and contribute"] = [
        *sorted((ROOT / "notebooks" / "teaching").glob("*.md")),
        *ROOT.glob("CONTRIBUTING.md"),
    ]
    pages["Solutions"] = solutions
    text = ""
    for caption, paths in pages.items():
        names = "\n".join(path.relative_to(ROOT).as_posix() for path in paths)
        if names:
            text += f"\n```{{toctree}}\n:hidden:\n:caption: {caption}\n\n{names}\n```\n"
    return text


def prepare(app: Sphinx, document: str, source: list[str]) -> None:
    """Adapt a page's text before it is read."""
    if document == root_doc:
        # A badge is a picture from elsewhere; the page of a lesson has its own link.
        source[0] = re.sub(r" \[!\[[^]]*\]\([^)]*\)\]\([^)]*\)", "", source[0])
        source[0] += contents()
    if app.env.doc2path(document).suffix != ".ipynb":
        # A heading's own anchor is what Sphinx gives it, too.
        source[0] = re.sub(r'(?m)^(#+ )<a id="[^"]*"></a>', r"\1", source[0])
        return
    notebook = json.loads(source[0])
    first = notebook["cells"][0]["source"]
    if "colab.research" in first[0]:  # this page has its own link
        notebook["cells"][0]["source"] = first[2:]
    for cell in notebook["cells"]:
        # Where the parser looks for a figure's alternative text.
        for output in cell.get("outputs", []):
            alt = output.get("metadata", {}).get("image/png", {}).get("alt")
            if alt:
                cell["metadata"]["mystnb"] = {"image": {"alt": alt}}
    source[0] = json.dumps(notebook)


def resolve_folders(app: Sphinx, doctree: nodes.document) -> None:
    """Resolve links to folders: they have no page, but a place on GitHub."""
    here = app.env.doc2path(app.env.docname).parent
    for link in list(doctree.findall(pending_xref)):
        folder = (here / link["reftarget"]).resolve()
        if not folder.is_dir() or not folder.is_relative_to(ROOT):
            continue
        name = folder.relative_to(ROOT).as_posix()
        if folder.name == "solutions":
            first = min(folder.glob("[0-9]*.ipynb")).relative_to(ROOT)
            uri = app.builder.get_relative_uri(
                app.env.docname, first.with_suffix("").as_posix()
            )
        elif build.is_published():
            address, tag = build.publication()
            uri = f"{address}/tree/{tag}/{name}"
        else:
            link.replace_self(link.children)
            continue
        link.replace_self(nodes.reference("", "", *link.children, refuri=uri))


def leave_out_of_search(app: Sphinx, doctree: nodes.document) -> None:
    """Let a search find a lesson, and not its solution, too, which has its text."""
    if "/solutions/" in app.env.docname:
        app.env.metadata[app.env.docname]["no-search"] = True


def describe(
    app: Sphinx, page: str, template: str, context: dict, doctree: nodes.Node | None
) -> None:
    """Tell the templates what a page can be taken away as."""
    path = Path(f"{page}.ipynb")
    context["take"] = context["other"] = context["colab"] = None
    if not (ROOT / path).exists():
        return
    context["take"] = path.name
    solution = "notebooks/solutions/" + path.name
    lesson = "notebooks/" + path.name
    context["is_lesson"] = path.parent.name == "notebooks"
    if not context["is_lesson"]:
        context["title"] += " (solution)"  # in the browser's tab and above the page
    other = solution if context["is_lesson"] else lesson
    if (ROOT / other).exists():
        context["other"] = other.removesuffix(".ipynb")
    if build.is_published():
        context["colab"] = build.colab(path.relative_to("notebooks").as_posix())


def finish(app: Sphinx, error: Exception | None) -> None:
    """Lay the notebooks beside their pages, and the front page where servers look."""
    if error:
        return
    for page in app.env.found_docs:
        path = Path(f"{page}.ipynb")
        if (ROOT / path).exists():
            shutil.copyfile(ROOT / path, app.outdir / path)
    shutil.copyfile(app.outdir / "README.html", app.outdir / "index.html")


def write_math(writer, node: nodes.math) -> None:
    """Write a formula as MathML, which browsers draw by themselves."""
    writer.body.append(convert(node.astext()))
    raise nodes.SkipNode


def write_math_block(writer, node: nodes.math_block) -> None:
    """Write a formula on a line of its own."""
    writer.body.append(convert(node.astext(), display="block"))
    raise nodes.SkipNode


def setup(app: Sphinx) -> None:
    """Hook the functions above in."""
    app.add_html_math_renderer("mathml", (write_math, None), (write_math_block, None))
    app.connect("source-read", prepare)
    app.connect("doctree-read", resolve_folders)
    app.connect("doctree-read", leave_out_of_search)
    app.connect("html-page-context", describe)
    app.connect("build-finished", finish)
