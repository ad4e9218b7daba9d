"""The APIs of other model servers."""
