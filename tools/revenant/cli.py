"""The command `revenant`: wiring only; each family of commands has its module.

Exit status: 0 done; 1 an error, one line on stderr (the thing, the reason, the remedy), or a fault that
`check` found; 2 wrong usage; 3 the kernel panicked; 4 no program is left, and one of
them died; 128+n ended by signal n; `run -- SCRIPT` gives the script's.
"""

from __future__ import annotations

import sys

import typer

from revenant import (
    __version__,
    debug,
    doctor,
    fleet,
    images,
    inspection,
    remote,
    report,
    running,
    trace,
    travel,
    upkeep,
    witness,
)
from revenant.bench import command as bench
from revenant.crash import command as crashtest
from revenant.errors import MachineError, RevenantError

app = typer.Typer(
    help="A machine whose programs do not die.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
images.register(app)
running.register(app)
remote.register(app)
travel.register(app)
inspection.register(app)
trace.register(app)
debug.register(app)
report.register(app)
upkeep.register(app)
doctor.register(app)
bench.register(app)
witness.register(app)
fleet.register(app)
crashtest.register(app)


@app.command()
def version() -> None:
    """Print the tool's version."""
    print(__version__)


def main() -> None:
    """Entry point; the only place that prints errors."""
    try:
        app()
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
