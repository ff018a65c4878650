"""The command `ccms`."""

import sys

EXIT_USAGE = 2


def main() -> None:
    """Runs the command."""
    try:
        from ccms_cli.app import app
    except ModuleNotFoundError as error:
        if error.name not in ("typer", "rich"):
            raise
        print(f"ccms: {error.name} is missing: pip install 'cc-metric-store[cli]'", file=sys.stderr)  # noqa: T201
        sys.exit(EXIT_USAGE)
    app(prog_name="ccms")


if __name__ == "__main__":
    main()
