"""Makes the reference pages from what they describe: `python -m docs.generate`, or `make docs`."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from api.app import ROUTES
from api.reference import reference_page
from docs.command_reference import command_page
from docs.document_reference import document_page
from docs.metric_reference import metric_page

REFERENCE: Final = Path(__file__).parent / "reference"
PAGES: Final[Mapping[str, Callable[[], str]]] = {
    "api.md": lambda: reference_page(ROUTES),
    "cli.md": command_page,
    "documents.md": document_page,
    "metrics.md": metric_page,
}


def main() -> None:
    """Writes every page whose text has changed, and names it."""
    for name, page in PAGES.items():
        path, text = REFERENCE / name, page()
        if not path.exists() or path.read_text() != text:
            path.write_text(text)
            print(path.relative_to(REFERENCE.parent.parent))


if __name__ == "__main__":
    main()
