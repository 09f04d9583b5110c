"""A hook of mkdocs: adds pages and figures from outside docs/ to the site, and corrects the links to them."""

from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parent.parent
SHOWN = [ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "results").rglob("*.*"))]


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """The files of docs/ and the others that the site shows, under their paths in the repository."""
    for path in SHOWN:
        if path.suffix in (".md", ".svg", ".png", ".jsonl"):
            files.append(File.generated(config, path.relative_to(ROOT).as_posix(), abs_src_path=str(path)))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """The page with its links as they are on the site, where docs/ is the top, and no line break beside a ±."""
    markdown = markdown.replace(" ± ", "\u00a0±\u00a0")
    return markdown.replace("](../", "](") if page.file.generated_by is None else markdown.replace("](docs/", "](")
