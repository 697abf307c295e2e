"""Measurements of Strongroom: ``script/bench``. What each shows is in docs/performance.md."""
