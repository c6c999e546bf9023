"""`python -m revenant`: the same command."""

from revenant.cli import main

main()
