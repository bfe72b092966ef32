"""Every citation "METHODS 2.3" of the code and the docs leads to a section of docs/methods.md."""

import re
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "methods.md"
PLACES = (
    "src/tracklearn/**/*.py",
    "benchmarks/*.py",
    "examples/*.py",
    "tests/**/*.py",
    "docs/*.md",
    "README.md",
)
FILES = sorted({p for place in PLACES for p in ROOT.glob(place)} - {PAGE, Path(__file__)})

NUMBER = r"\d+[a-z]?(?:\.\d+)?\b"
# One number, or several: "2.1 and 2.3", "2.2, 2.3", "3-6"; a line may end after METHODS or a comma.
AGAIN = r"[\s#]*(?:,|[-–]|\band\b|\bto\b)[\s#]*"
CITED = re.compile(rf"\bMETHODS[\s#]+({NUMBER}(?:{AGAIN}{NUMBER})*)")
HEADING = re.compile(rf"^#{{2,}} ({NUMBER}) \S", re.MULTILINE)


def cited(text: str) -> Iterator[tuple[int, str]]:
    """Line and number of each section that a text cites; of a range its two ends."""
    for match in CITED.finditer(text):
        for number in re.finditer(NUMBER, match[1]):
            yield text.count("\n", 0, match.start(1) + number.start()) + 1, number[0]


def order(number: str) -> tuple[int, str, int]:
    """What orders sections: 6, 6a, 6a.1, 7."""
    chapter, _, section = number.partition(".")
    digits = chapter.rstrip("abcdefghijklmnopqrstuvwxyz")
    return int(digits), chapter[len(digits) :], int(section or 0)


def headings() -> list[str]:
    return HEADING.findall(PAGE.read_text(encoding="utf-8"))


def test_every_section_cited_is_there():
    known = set(headings())
    wrong = [
        f"{path.relative_to(ROOT)}:{line} cites METHODS {number}"
        for path in FILES
        for line, number in cited(path.read_text(encoding="utf-8"))
        if number not in known
    ]
    assert wrong == []


def test_the_search_finds_citations():
    text = "METHODS 2.1 and 2.3, (METHODS 6a)\nMETHODS\n    3-6 METHODS 2.2–2.4, METHODS 4. METHODS = 5\n"
    found = [(1, "2.1"), (1, "2.3"), (1, "6a"), (3, "3"), (3, "6"), (3, "2.2"), (3, "2.4"), (3, "4")]
    assert list(cited(text)) == found
    sources = [p for p in (ROOT / "src").rglob("*.py") if any(cited(p.read_text(encoding="utf-8")))]
    assert len(sources) >= 15


def test_sections_come_once_and_in_order():
    assert all(order(before) < order(after) for before, after in pairwise(headings()))
