"""Documentation stays true: links lead somewhere, requirements are traced, decisions have their form."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SKIPPED = {".venv", ".git", "node_modules", "build", "dist"}
PAGES = sorted(p for p in ROOT.rglob("*.md") if not SKIPPED & set(p.relative_to(ROOT).parts))

# The numbers of the requirements, as they were agreed; adding one means saying where it is built.
REQUIREMENTS = [
    f"{group}.{n}"
    for group, last in {
        "P1": 4, "P2": 3, "E1": 10, "E2": 6, "P4": 3, "P5": 3, "P6": 5, "P7": 5, "E3": 4, "E4": 6,
    }.items()
    for n in range(1, last + 1)
]  # fmt: skip

_FENCE = re.compile(r"^```.*?^```", re.M | re.S)
_INLINE_CODE = re.compile(r"`[^`\n]*`")
_LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
_HEADING = re.compile(r"^#+ +(.*)$", re.M)


def prose(page: Path) -> str:
    return _INLINE_CODE.sub("", _FENCE.sub("", page.read_text("utf-8")))


def anchors(page: Path) -> set[str]:
    """The anchors that a reader's viewer makes of the headings."""
    headings = _HEADING.findall(_FENCE.sub("", page.read_text("utf-8")))
    return {re.sub(r"[^\w\- ]", "", h.strip().lower()).replace(" ", "-") for h in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_every_link_in_a_page_leads_to_a_file_and_a_heading(page: Path) -> None:
    broken = []
    for target in _LINK.findall(prose(page)):
        if re.match(r"[a-z]+:", target):
            continue
        name, _, anchor = target.partition("#")
        file = (page.parent / name).resolve() if name else page
        if not file.exists() or (anchor and file.suffix == ".md" and anchor not in anchors(file)):
            broken.append(target)
    assert not broken


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_every_row_of_a_table_stands_below_its_head(page: Path) -> None:
    """An empty line inside a table ends it: what follows would be shown as plain text."""
    lines = _FENCE.sub(lambda m: "\n" * m[0].count("\n"), page.read_text("utf-8")).splitlines()
    heads = [
        n
        for n, line in enumerate(lines)
        if line[:1] == "|" and lines[n - 1 : n] != [] and lines[n - 1][:1] != "|"
    ]
    cut_off = [
        lines[n] for n in heads if not re.fullmatch(r"\|[ :|-]+\|", "".join(lines[n + 1 : n + 2]).strip())
    ]
    assert not cut_off


FOR_READERS = [p for p in PAGES if p.is_relative_to(ROOT / "docs") and "adr" not in p.parts]


@pytest.mark.parametrize("page", FOR_READERS, ids=lambda p: str(p.relative_to(ROOT)))
def test_a_page_begins_with_what_it_is_for(page: Path) -> None:
    """A title, then a sentence: no table, code or further heading before the reader knows where they are."""
    title, _, rest = page.read_text("utf-8").partition("\n")
    assert title.startswith("# ")
    first = rest.lstrip("\n").partition("\n")[0]
    assert len(first) > 30 and not first.startswith(("#", "|", "```", "- "))


def test_every_page_is_reached_from_the_index_and_the_readme_leads_there() -> None:
    """docs/README.md names each page, or the index of the directory that it is in."""
    index = ROOT / "docs/README.md"
    named = {(index.parent / t.partition("#")[0]).resolve() for t in _LINK.findall(prose(index))}
    for page in FOR_READERS:
        own_index = page.with_name("README.md")
        if page.parent != index.parent and page != own_index:
            assert f"({page.name})" in own_index.read_text("utf-8"), page
            page = own_index
        assert page in named or page == index, page
    assert "(docs/README.md)" in (ROOT / "README.md").read_text("utf-8")


def test_every_metric_that_a_page_names_is_one_that_the_program_has() -> None:
    """An alert on a figure that is not there never fires."""
    made = {
        name
        for path in (ROOT / "src").rglob("*.py")
        for name in re.findall(r'"(strongroom_[a-z_]+)', path.read_text("utf-8"))
    }
    named = {
        (name, page.name)
        for page in PAGES
        for name in re.findall(r"`(strongroom_[a-z_]+)[`{]", page.read_text("utf-8"))
    }
    assert len(named) > 20
    assert {(n, p) for n, p in named if n not in made and n.removesuffix("_total") not in made} == set()


def test_the_figures_of_the_readme_are_rows_of_the_page_that_says_how_they_were_measured() -> None:
    """Copied as they are: a figure that is measured anew changes in both places or in none."""
    part = (ROOT / "README.md").read_text("utf-8").partition("\n## Measured\n")[2].partition("\n## ")[0]
    rows = [line for line in part.splitlines() if line.startswith("| ")]
    measured = set((ROOT / "docs/performance.md").read_text("utf-8").splitlines())
    assert len(rows) > 10
    assert [row for row in rows if row not in measured] == []


def traced() -> dict[str, tuple[str, str]]:
    """Requirement -> (where built, shown by), from the tables of docs/traceability.md."""
    rows: dict[str, tuple[str, str]] = {}
    for line in (ROOT / "docs/traceability.md").read_text("utf-8").splitlines():
        cells = [c.strip() for c in line.strip().strip("|").split("|")]
        if re.fullmatch(r"[PE]\d+\.\d+", cells[0]):
            assert cells[0] not in rows, f"{cells[0]} stands twice"
            assert len(cells) == 4, line
            rows[cells[0]] = (cells[2], cells[3])
    return rows


def test_every_requirement_is_traced_once_and_none_is_invented() -> None:
    assert sorted(traced()) == sorted(REQUIREMENTS)


@pytest.mark.parametrize("number", REQUIREMENTS)
def test_a_traced_requirement_names_existing_files_or_says_not_yet(number: str) -> None:
    built, shown = traced()[number]
    for cell in (built, shown):
        paths = re.findall(r"`([\w.*-]+/[\w./*-]+|bench|vectors)(?:::\w+)?`", cell)
        assert paths or "not yet" in cell, f"{number} says neither where nor 'not yet'"
        missing = [p for p in paths if not list(ROOT.glob(p))]
        assert not missing, f"{number} names what is not there: {missing}"
    for path, name in re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", shown):
        assert re.search(rf"^(async )?def {name}\(", (ROOT / path).read_text("utf-8"), re.M), (
            f"{path} has no {name}"
        )
    for path in re.findall(r"`(tests/[\w/]+)`", shown):
        assert list((ROOT / path).rglob("test_*.py")), f"{number}: {path} holds no test"


def figures() -> set[str]:
    """Every figure that some part of the product makes, under the name by which it is exported."""
    found = set()
    for path in (ROOT / "src").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if not isinstance(node, ast.Call) or not node.args:
                continue
            kind, name = getattr(node.func, "id", getattr(node.func, "attr", "")), node.args[0]
            if kind in ("Counter", "Gauge", "Histogram") and isinstance(name, ast.Constant):
                found.add(f"{name.value}_total" if kind == "Counter" else str(name.value))
    return found


def test_every_figure_is_in_the_table_of_the_operations_page() -> None:
    """Nothing is exported that the page does not explain, and nothing explained that is not exported."""
    page = (ROOT / "docs/operations.md").read_text("utf-8")
    named = re.findall(r"^\| `(strongroom_\w+)` \| (?:counter|gauge|histogram) \|", page, re.M)
    assert sorted(named) == sorted(figures())


ADRS = sorted((ROOT / "docs/adr").glob("[0-9]*.md"))


@pytest.mark.parametrize("page", ADRS, ids=lambda p: p.name)
def test_a_decision_has_context_options_decision_and_consequences(page: Path) -> None:
    headings = _HEADING.findall(page.read_text("utf-8"))
    assert {"Context", "Options", "Decision", "Consequences"} <= set(headings)


def test_decisions_are_numbered_without_gap_or_repetition() -> None:
    assert [int(p.name[:4]) for p in ADRS] == list(range(len(ADRS)))


def test_the_changelog_keeps_its_form() -> None:
    text = (ROOT / "CHANGELOG.md").read_text("utf-8")
    headings = re.findall(r"^## (.*)$", text, re.M)
    assert headings
    assert headings[0] == "[Unreleased]"
    assert all(re.fullmatch(r"\[\d+\.\d+\.\d+\] - \d{4}-\d\d-\d\d", h) for h in headings[1:])
    parts = set(re.findall(r"^### (.*)$", text, re.M))
    assert parts <= {"Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"}
