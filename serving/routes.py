"""Which routes there are: their names for metrics, their methods, and the right that a key needs."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from fastapi.routing import iter_route_contexts
from starlette.routing import BaseRoute, Mount

from churn.domain.access import Right
from serving.keys import Requires

OTHER = "other"


@dataclass
class _Route:
    methods: set[str] = field(default_factory=set)
    right: Right | None = None


NOTHING = _Route()


class Routes:
    """The application's routes by path, as they are when this is made."""

    def __init__(self, routes: Sequence[BaseRoute]) -> None:
        self._routes: dict[str, _Route] = {}
        self._patterns = []
        self._folders = []
        for route in iter_route_contexts(routes):
            path = route.path or ""
            if isinstance(route.original_route, Mount):
                self._folders.append(f"{path}/")
                continue
            if path not in self._routes and "{" in path:
                self._patterns.append((route.path_regex, path))
            known = self._routes.setdefault(path, _Route())
            # HEAD comes with GET, whether the framework says so or not.
            known.methods |= (route.methods or set()) - {"HEAD"}
            for dependency in getattr(route, "dependencies", ()):
                if isinstance(dependency.dependency, Requires):
                    known.right = dependency.dependency.right

    def name(self, path: str) -> str:
        """The route that takes the path, like `/v2/models/{name}/infer`; or `other`."""
        if path in self._routes:
            return path
        return next((name for pattern, name in self._patterns if pattern.match(path)), OTHER)

    def methods(self, path: str) -> set[str]:
        """The methods that the path takes besides HEAD and OPTIONS; none if there is no such path."""
        if any(path.startswith(folder) for folder in self._folders):
            return {"GET"}
        return self._routes.get(self.name(path), NOTHING).methods

    def right(self, path: str) -> Right | None:
        """The right that the path's route needs; None if any known key will do."""
        return self._routes.get(self.name(path), NOTHING).right
