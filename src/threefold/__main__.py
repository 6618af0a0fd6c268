"""`python -m threefold`: the command line."""

from threefold.cli import main

main()
