"""Processes in which packages are not installed."""

WITHOUT = """
import sys

class Missing:
    attempted = set()

    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in HEAVY:
            self.attempted.add(name.partition(".")[0])
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Missing())
"""


def without(*packages: str) -> str:
    """Code in which every import of these packages fails, as if not installed; `Missing.attempted` has those tried."""
    return f"HEAVY = {packages!r}\n{WITHOUT}"
