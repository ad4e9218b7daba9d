"""Reading the parts of the event log, which `churn.events` writes."""
