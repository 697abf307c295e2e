"""``python -m tests.pgwire.dialect``: write anew which tests of the suite pass on a real PostgreSQL 15.

Run it after a new version of SQLAlchemy. Only tests that ask something of the server that is looked at are
kept: those that make, fill and reflect tables of their own have no place on a server that only reads.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from tests.pgwire.dialect.servers import PASSING, postgres, run_suite, with_databases


def main() -> None:
    with tempfile.TemporaryDirectory() as folder, postgres() as server:
        tables, nothing = with_databases(server)
        first = run_suite(Path(folder), nothing, tables)
        asked = sorted(name for name, result in first.items() if result.passed and result.questions)
        again = run_suite(Path(folder), nothing, tables, asked)  # by themselves, as the test runs them
    kept = [name for name in asked if again[name].passed and again[name].questions]
    PASSING.write_text("\n".join(kept) + "\n", "utf-8")
    print(f"{len(first)} ran, {len(kept)} are kept")


if __name__ == "__main__":
    main()
