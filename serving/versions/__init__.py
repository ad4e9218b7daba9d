"""Which model version serves: fetched, checked, kept on disk and switched."""
