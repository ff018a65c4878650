"""`/swagger/`: a page to try the API, with every file of it served from here."""

from http import HTTPStatus
from importlib.util import find_spec
from pathlib import Path
from typing import Final

from aiohttp import hdrs, web

from ccms_gateway.errors import Handler
from ccms_server.errors import ConfigError

_FILES: Final = {
    "swagger-ui.css": "text/css",
    "swagger-ui-bundle.js": "text/javascript",
    "favicon-16x16.png": "image/png",
    "favicon-32x32.png": "image/png",
}
"""What the page needs of the package. It has more, an editor for example, which is nobody's business here."""

_PAGE: Final = """<!DOCTYPE html>
<html lang="en">
<head>
  <meta charset="utf-8">
  <meta name="viewport" content="width=device-width, initial-scale=1">
  <title>cc-metric-store</title>
  <link rel="stylesheet" href="swagger-ui.css">
  <link rel="icon" type="image/png" sizes="32x32" href="favicon-32x32.png">
  <link rel="icon" type="image/png" sizes="16x16" href="favicon-16x16.png">
</head>
<body>
  <div id="api"></div>
  <script src="swagger-ui-bundle.js"></script>
  <script src="start.js"></script>
</body>
</html>
"""

_START: Final = """"use strict";
window.ui = SwaggerUIBundle({
  url: "../api/openapi.json",
  dom_id: "#api",
  deepLinking: true,
  validatorUrl: null, // nothing is asked of others
});
"""

_HEADERS: Final = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data:; connect-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}


def swagger_handlers() -> dict[str, Handler]:
    """What answers at which path.

    Raises:
        ConfigError: The package with the files is not installed.
    """
    directory = _static_directory()
    return {
        "/swagger": _redirect,
        "/swagger/": _handler(_PAGE.encode(), "text/html"),
        "/swagger/start.js": _handler(_START.encode(), "text/javascript"),
        **{f"/swagger/{name}": _handler((directory / name).read_bytes(), kind) for name, kind in _FILES.items()},
    }


def _static_directory() -> Path:
    # The package is looked up rather than imported: it brings a web framework's worth of code along.
    found = find_spec("swagger_ui")
    directories = [] if found is None else [Path(each) / "static" for each in found.submodule_search_locations or ()]
    for directory in directories:
        if all((directory / name).is_file() for name in _FILES):
            return directory
    raise ConfigError("-dev", None, "needs the files of the Swagger UI: pip install 'cc-metric-store[swagger]'")


async def _redirect(request: web.Request) -> web.StreamResponse:
    """The page names its files relative to the path with the slash."""
    return web.Response(status=HTTPStatus.PERMANENT_REDIRECT, headers={hdrs.LOCATION: "swagger/"})


def _handler(body: bytes, content_type: str) -> Handler:
    charset = "utf-8" if content_type.startswith("text/") else None

    async def handle(request: web.Request) -> web.StreamResponse:
        return web.Response(body=body, content_type=content_type, charset=charset, headers=_HEADERS)

    return handle
