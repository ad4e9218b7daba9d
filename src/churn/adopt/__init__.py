"""Another table: `churn init` drafts its contract, `churn check` lists the mistakes of one."""
