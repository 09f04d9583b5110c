"""The fenced blocks of README and docs, and the commands in them."""

import re
import shlex
from typing import NamedTuple

from checkout import ROOT

PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
FENCE = re.compile(r"^```(\w*)[^\n]*\n(.*?)^```$", re.MULTILINE | re.DOTALL)


class Block(NamedTuple):
    """A fenced block: its page, the line of the page on which it begins, its language, and its text."""

    page: str
    line: int
    language: str
    text: str


def find_blocks() -> list[Block]:
    """All fenced blocks of all pages, in order."""
    return [
        Block(page.relative_to(ROOT).as_posix(), text[: match.start()].count("\n") + 1, match[1], match[2])
        for page in PAGES
        for text in [page.read_text(encoding="utf-8")]
        for match in FENCE.finditer(text)
    ]


def find_commands(blocks: list[Block]) -> dict[str, list[str]]:
    """Each command of the bash blocks, on one line and without its comment, with the pages that it stands on."""
    commands: dict[str, list[str]] = {}
    for block in blocks:
        if block.language == "bash":
            for line in re.sub(r"\\\n\s*", "", block.text).splitlines():
                if words := shlex.split(line, comments=True):
                    commands.setdefault(shlex.join(words), []).append(block.page)
    return commands
