"""The command `revenant`: wiring only; each family of commands has its module.

Exit status: 0 done; 1 an error, one line on stderr (the thing, the reason, the remedy), or a fault that
`check` found; 2 wrong usage; 3 the kernel panicked; 4 no program is left, and one of
them died; 128+n ended by signal n; `run -- SCRIPT` gives the script's.
"""

from __future__ import annotations

import importlib
import sys

import typer

from revenant import __version__
from revenant.errors import MachineError, RevenantError

# Only the module of the command that is asked for is loaded: all of them take longer than a machine takes to start.
FAMILIES = {
    "images": ("create", "info", "check", "log", "publish", "keygen"),
    "running": ("run", "serve", "demo"),
    "remote": ("mpremote",),
    "travel": ("tag", "diff", "rollback", "fork"),
    "inspection": ("inspect",),
    "trace": ("trace",),
    "debug": ("debug",),
    "report": ("report",),
    "upkeep": ("upgrade", "grow"),
    "doctor": ("doctor",),
    "bench.command": ("bench",),
    "witness": ("witness",),
    "fleet": ("fleet",),
    "crash.command": ("crashtest",),
}


def version() -> None:
    """Print the tool's version."""
    print(__version__)


def build_app(word: str | None = None) -> typer.Typer:
    """The command with its families: the one of the command `word` alone if there is one, else all."""
    app = typer.Typer(
        help="A machine whose programs do not die.",
        no_args_is_help=True,
        add_completion=False,
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
    )
    asked = [module for module, commands in FAMILIES.items() if word in commands]
    for module in asked or FAMILIES:
        importlib.import_module(f"revenant.{module}").register(app)
    app.command()(version)
    return app


def main() -> None:
    """Entry point; the only place that prints errors."""
    try:
        build_app(sys.argv[1] if len(sys.argv) > 1 else None)()
    except RevenantError as error:
        if isinstance(error, MachineError) and error.details:
            print(error.details, file=sys.stderr)
        print(f"revenant: {error}", file=sys.stderr)
        sys.exit(error.exit_status if isinstance(error, MachineError) else 1)
    except BrokenPipeError:
        sys.stderr.close()
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)
