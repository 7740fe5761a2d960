"""`serve`: the store over HTTP; `token`: who may call it."""

from __future__ import annotations

import asyncio
import signal
import sys
from typing import TYPE_CHECKING, Annotated

import typer

from . import output
from .frame import WORK, command
from .logs import LogFormat, log_to_stderr
from .options import DEFAULT_STORE, AsJson, StoreUrl, ending
from .problem import Problem

if TYPE_CHECKING:
    from ..server import Settings

_Names = list[str] | None


@command(
    WORK,
    ending(
        {0: "stopped by SIGTERM or Ctrl-C", 2: "cannot: the port is taken, or the extra is not installed"},
        [
            "serve",
            "serve --port 9000 --store sqlite:///app.db",
            "serve --host 0.0.0.0 --allow-host app.example",
        ],
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
    token_needed: Annotated[
        bool,
        typer.Option("--token-needed", help="Callers on this machine need a token too; others always do."),
    ] = False,
    allow_host: Annotated[
        _Names, typer.Option("--allow-host", metavar="NAME", help="A name by which the server may be called.")
    ] = None,
    allow_origin: Annotated[
        _Names,
        typer.Option("--allow-origin", metavar="ORIGIN", help="Web pages of this origin may call it (CORS)."),
    ] = None,
    trails: Annotated[
        str | None, typer.Option("--trails", metavar="FOLDER", help="A folder of trails to show.")
    ] = None,
    log_format: LogFormat = "text",
    store: StoreUrl = DEFAULT_STORE,
    as_json: AsJson = False,
) -> int:
    """Serve the store over HTTP: the API, events as they happen, and the page.

    Workers and clients connect with `http://ADDRESS:PORT` as their store. Says in one line when it is ready (on
    stderr; with --json on stdout).
    """
    try:
        from ..server import Settings
    except ImportError as error:
        raise Problem(
            f"`holdfast serve` needs the extra `server` ({error})", hint="pip install 'holdfast[server]'"
        ) from None
    log_to_stderr(log_format)
    settings = Settings(
        host=host,
        port=port,
        token_needed=token_needed,
        hosts=tuple(name.lower() for name in allow_host or ()),
        origins=tuple(allow_origin or ()),
        trails=trails,
    )
    return asyncio.run(_serve(store, settings, as_json))


async def _serve(store: str, settings: Settings, as_json: bool) -> int:
    from ..server import serving
    from .stores import connected

    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    async with connected(store, create=True) as app, serving(app, settings) as url:
        if as_json:
            output.data_json({"url": url, "store": store})
        else:
            output.note(f"serving {store} on {url}")
        sys.stdout.flush()
        await stop.wait()
    output.note("stopped: whoever reads resumes with the next server")
    return 0
