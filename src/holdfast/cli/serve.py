"""`serve`: the store over HTTP."""

from __future__ import annotations

import asyncio
from typing import Annotated

import typer

from . import output
from .frame import WORK, command
from .options import DEFAULT_STORE, AsJson, StoreUrl, ending
from .problem import Problem


@command(
    WORK,
    ending(
        {0: "stopped by SIGTERM or Ctrl-C", 2: "cannot: the port is taken, or the extra is not installed"},
        ["serve", "serve --port 9000 --store sqlite:///app.db"],
    ),
)
def serve(
    host: Annotated[
        str,
        typer.Option("--host", metavar="ADDRESS", help="Where to listen (127.0.0.1: this machine alone)."),
    ] = "127.0.0.1",
    port: Annotated[
        int,
        typer.Option("--port", metavar="N", min=0, max=65535, help="The port (8470); 0 takes a free one."),
    ] = 8470,
    store: StoreUrl = DEFAULT_STORE,
    as_json: AsJson = False,
) -> int:
    """Serve the store over HTTP: the API, events as they happen, and the page.

    Says in one line when it is ready (on stderr; with --json on stdout).
    """
    try:
        import uvicorn

        from ..server import Service, Settings, build
    except ImportError as error:
        raise Problem(
            f"`holdfast serve` needs the extra `server` ({error})", hint="pip install 'holdfast[server]'"
        ) from None
    from .stores import connected

    async def main() -> None:
        async with connected(store, create=True) as app:
            settings = Settings(host=host, port=port)
            config = uvicorn.Config(build(Service(app, settings)), host=host, port=port, log_level="warning")
            output.note(f"serving {store} on http://{host}:{port}")
            await uvicorn.Server(config).serve()

    asyncio.run(main())
    return 0
