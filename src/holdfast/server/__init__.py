"""`holdfast serve`: the client and the store over HTTP, events as they happen, and the page. Extra `server`.

- `listen`: uvicorn, and an orderly stop
- `app`: the ASGI application: the door, and the routes of `api` and `page`
- `service`: what every route works with: the store, a client on it, what is shared
- `access`: who may do what: tokens, hosts, origins, rates; `tokens`: made and recognised
- `refusal`: errors as HTTP knows them
- `tails`: logs as they grow, for many readers
- `newsroom`: who is told of commits, and which workers hang on which connection
- `settings`: what an operator can set
- `api`: the HTTP API; its types make the OpenAPI document
- `page`: what people see in a browser
"""

from .app import build
from .listen import serving
from .service import Service
from .settings import Settings

__all__ = ["Service", "Settings", "build", "serving"]
