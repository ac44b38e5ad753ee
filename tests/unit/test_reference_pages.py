"""The reference pages are what they describe: `make docs` writes them."""

import pytest

from docs.generate import PAGES, REFERENCE


@pytest.mark.parametrize("name", sorted(PAGES))
def test_a_reference_page_says_what_the_code_does(name: str) -> None:
    """No command, option, route or field is undocumented, and none that is gone is left."""
    assert (REFERENCE / name).read_text() == PAGES[name](), "make docs"
