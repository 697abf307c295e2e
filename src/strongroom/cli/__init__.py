"""The ``strongroom`` command. Its modules import the rest of the package only when a command runs."""

from strongroom.cli._interrupt import at_once, end

__all__ = ["main"]


def main() -> None:
    """The entry point of the installed command."""
    at_once()
    from strongroom.cli import _main  # a fifth of a second, in which Ctrl-C must not end in a traceback

    try:
        _main.main()
    except KeyboardInterrupt:  # between the last steps
        end()
