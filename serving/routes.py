"""Which routes there are: their names for metrics, and their methods."""

from collections.abc import Iterable

from starlette.routing import BaseRoute, Mount, Route

OTHER = "other"
NOTHING: frozenset[str] = frozenset()


class Routes:
    """The application's routes by path, as they are when this is made."""

    def __init__(self, routes: Iterable[BaseRoute]) -> None:
        self._methods: dict[str, frozenset[str]] = {}
        self._patterns = []
        self._folders = []
        for route in routes:
            match route:
                case Mount():
                    self._folders.append(f"{route.path}/")
                case Route():
                    # HEAD comes with GET, whether the framework says so or not.
                    methods = frozenset(route.methods or ()) - {"HEAD"}
                    self._methods[route.path] = self._methods.get(route.path, NOTHING) | methods
                    if "{" in route.path:
                        self._patterns.append((route.path_regex, route.path))

    def name(self, path: str) -> str:
        """The route that takes the path, like `/v2/models/{name}/infer`; or `other`."""
        if path in self._methods:
            return path
        return next((name for pattern, name in self._patterns if pattern.match(path)), OTHER)

    def methods(self, path: str) -> frozenset[str]:
        """The methods that the path takes besides HEAD and OPTIONS; none if there is no such path."""
        if any(path.startswith(folder) for folder in self._folders):
            return frozenset({"GET"})
        return self._methods.get(self.name(path), NOTHING)
