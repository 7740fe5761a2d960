"""`holdfast serve`: the client and the store over HTTP, events as they happen, and the page. Extra `server`.

app        the ASGI application: middleware, and the routes of `api` and `page`
service    what every route works with: the store, a client on it, settings
settings   what an operator can set, and the defaults
api        the HTTP API; its types make the OpenAPI document
page       what people see in a browser
"""

from .app import build
from .service import Service
from .settings import Settings

__all__ = ["Service", "Settings", "build"]
