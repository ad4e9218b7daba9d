"""The demo plays the shipped company: with another table these tests are left out."""

from churn.contract import BY_NAME
from demo.reality import TELCO

collect_ignore_glob = [] if BY_NAME.keys() >= set(TELCO) else ["test_*.py"]
