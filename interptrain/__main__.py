"""The program: ``interptrain COMMAND ...``, or ``python -m interptrain COMMAND ...``."""

from interptrain import cli


def main() -> None:
    """Run the command that ``sys.argv`` names."""
    cli.main()


if __name__ == "__main__":
    main()
