"""`token`: who may call a server on this store."""

from __future__ import annotations

import asyncio
from typing import Annotated

import typer

from . import output
from .frame import WORK, command, group
from .options import DEFAULT_STORE, AsJson, StoreUrl, ending
from .problem import NO, Problem

token = group(WORK, "token", "Let callers in who are not on this machine: tokens of `holdfast serve`.")


def _needs_extra(error: ImportError) -> Problem:
    return Problem(f"tokens need the extra `server` ({error})", hint="pip install 'holdfast[server]'")


@command(
    WORK,
    ending(
        {0: "made; the token is on stdout, this once", 2: "cannot: no such scope"},
        ["token create --scope work"],
    ),
    name="create",
    of=token,
)
def create(
    scope: Annotated[
        str,
        typer.Option(
            "--scope",
            metavar="SCOPE",
            help="read: look at everything; write: also start, resume and cancel; work: also be a worker.",
        ),
    ],
    note: Annotated[str, typer.Option("--note", metavar="TEXT", help="Who or what it is for.")] = "",
    store: StoreUrl = DEFAULT_STORE,
    as_json: AsJson = False,
) -> int:
    """Make a token. It is shown once; the store keeps only its hash."""
    try:
        from ..server import tokens
    except ImportError as error:
        raise _needs_extra(error) from None
    from .stores import connected

    async def make() -> str:
        async with connected(store, create=True) as app:
            return await tokens.create(app.store, scope, note)

    made = asyncio.run(make())
    if as_json:
        output.data_json({"id": made.split("_")[1], "scope": scope, "token": made})
    else:
        output.data(made)
    return 0


@command(
    WORK, ending({0: "listed", 2: "cannot: there is no such store"}, ["token list"]), name="list", of=token
)
def list_(store: StoreUrl = DEFAULT_STORE, as_json: AsJson = False) -> int:
    """List the tokens: their ids, scopes and notes. Nobody can list what they are."""
    from ..clock import to_text
    from .stores import existing

    async def read() -> None:
        async with existing(store) as opened:
            found = await opened.tokens()
        if as_json:
            for one in found:
                output.data_json(
                    {"id": one.id, "scope": one.scope, "created": to_text(one.created), "note": one.note}
                )
        elif found:
            rows = [[one.id, one.scope, to_text(one.created)[:19], output.clean(one.note)] for one in found]
            output.table(["ID", "SCOPE", "CREATED", "NOTE"], rows)
        else:
            output.note("there is no token: who is not on this machine cannot call")

    asyncio.run(read())
    return 0


@command(
    WORK,
    ending(
        {0: "it is let in no more", 1: "there is no such token", 2: "cannot: there is no such store"},
        ["token revoke 7f3k9m2x4q8w"],
    ),
    name="revoke",
    of=token,
)
def revoke(
    id: Annotated[
        str, typer.Argument(metavar="ID", help="The token's id, as `holdfast token list` shows it.")
    ],
    store: StoreUrl = DEFAULT_STORE,
    as_json: AsJson = False,
) -> int:
    """Let a token in no more, from its next request on."""
    from .stores import existing

    async def drop() -> bool:
        async with existing(store) as opened:
            return await opened.drop_token(id)

    dropped = asyncio.run(drop())
    if as_json:
        output.data_json({"id": id, "revoked": dropped})
    elif not dropped:
        raise Problem(f"no token {id!r} in {store}", hint="`holdfast token list` shows them", code=NO)
    else:
        output.data(f"{id} is revoked")
    return 0 if dropped else NO
