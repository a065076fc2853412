"""Stamp the course's public address and release into all that name them.

``make publish-links REPO=owner/name TAG=v1.0`` sets both in ``pyproject.toml``, and
gives every notebook a link to Colab and a set-up cell, and every lesson in the README a
badge, with a link to the website. It runs no notebook: no output depends on that.
"""

import argparse
import re
from pathlib import Path

import build
import nbformat

ROOT = Path(__file__).resolve().parents[2]

IMAGE = "![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)"
LESSON = re.compile(
    rf"(\| \[[^\]]*\]\(notebooks/(\w+\.ipynb)\))(?: \[{re.escape(IMAGE)}\]\([^)]*\))?"
)
"""A lesson's link in the README's table, and its badge if it has one."""
READ = "[Read it in the browser]({address}), with nothing to install.\n\n"
WEBSITE = re.compile(re.escape(READ).replace(re.escape("{address}"), r"[^)]*"))


def repository(text: str) -> str:
    """Take a repository as GitHub names it, or say how it is named."""
    if not re.fullmatch(r"[\w-]+/[\w.-]+", text, re.ASCII):
        raise argparse.ArgumentTypeError(
            f"{text!r} is not a repository: write it as owner/name, without https."
        )
    return text


def release(text: str) -> str:
    """Take a tag that can stand in an address."""
    if not re.fullmatch(r"[\w][\w.+-]*", text, re.ASCII):
        raise argparse.ArgumentTypeError(
            f"{text!r} is not a tag: write it as v1.0, of letters, digits and dots."
        )
    return text


def replace_once(text: str, pattern: str, new: str) -> str:
    """Replace what must be there exactly once."""
    text, count = re.subn(pattern, lambda _: new, text, flags=re.MULTILINE)
    assert count == 1, f"{count} times, not once: {pattern}"
    return text


def with_badges(readme: str) -> str:
    """Link to the website, and put a badge behind each lesson's link in the table.

    Before the course is public there is neither.

    Parameters
    ----------
    readme : str
        The README's text, with badges or without.
    """

    def row(match: re.Match) -> str:
        badge = f" [{IMAGE}]({build.colab(match[2])})" if build.is_published() else ""
        return match[1] + badge

    readme = LESSON.sub(row, WEBSITE.sub("", readme))
    if build.is_published():
        link = READ.format(address=build.website())
        readme = re.sub(r"(?m)^!\[", lambda image: link + image[0], readme, count=1)
    return readme


def stamp(repo: str, tag: str) -> None:
    """Write the address and the tag into pyproject.toml, README and notebooks."""
    address = f"https://github.com/{repo}"
    settings = ROOT / "pyproject.toml"
    text = settings.read_text("utf-8")
    text = replace_once(text, r"^Repository = .*$", f'Repository = "{address}"')
    text = replace_once(text, r"^release = .*$", f'release = "{tag}"')
    settings.write_text(text, encoding="utf-8")

    readme = ROOT / "README.md"
    text = readme.read_text("utf-8")
    readme.write_text(with_badges(text), encoding="utf-8")

    for source in sorted(build.SOURCES.glob("[0-9]*.py")):
        for path, solved in build.targets(source):
            notebook = build.make_notebook(source, solved=solved)
            build.keep_outputs(notebook, path)
            nbformat.write(notebook, path)


def main() -> None:
    """Read the command line, and say what is left to do."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--repo", type=repository, required=True, metavar="OWNER/NAME")
    parser.add_argument("--tag", type=release, required=True, metavar="v1.0")
    arguments = parser.parse_args()
    stamp(arguments.repo, arguments.tag)
    print(
        f"Stamped. Now commit, then `git tag {arguments.tag}` and push both: the links "
        f"work once https://github.com/{arguments.repo} has that tag."
    )


if __name__ == "__main__":
    main()
