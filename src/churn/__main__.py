"""`python -m churn`: the command line."""

from churn.cli import main

main()
