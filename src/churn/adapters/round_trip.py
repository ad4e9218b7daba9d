"""YAML that keeps its comments and its layout when a value is replaced."""

import io
from pathlib import Path
from typing import Any

from churn.adapters.files import atomic_path
from churn.adapters.packages import require


def replace(path: Path, keys: tuple[str, ...], values: dict[str, Any]) -> None:
    """Replace values of the mapping at `keys`; a list of mappings is written with each mapping on one line.

    Raises:
        ConfigError: ruamel.yaml is not installed.
    """
    require("tune", "ruamel.yaml")
    from ruamel.yaml import YAML
    from ruamel.yaml.comments import CommentedMap, CommentedSeq

    yaml = YAML()
    yaml.preserve_quotes = True
    yaml.width = 1000
    yaml.indent(mapping=2, sequence=4, offset=2)
    document = yaml.load(path.read_text())
    section = document
    for key in keys:
        section = section[key]
    for key, value in values.items():
        if isinstance(value, list):
            rows = CommentedSeq([CommentedMap(row) for row in value])
            for row in rows:
                row.fa.set_flow_style()
            section[key] = rows
        elif section.get(key) != value:
            section[key] = value
    text = io.StringIO()
    yaml.dump(document, text)
    with atomic_path(path) as temporary:
        temporary.write_text(text.getvalue())
