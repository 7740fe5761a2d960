"""SQLite only: news between processes, and what is left of them."""

import asyncio
import os
import socket

from patience import PATIENCE
from store_kit import (
    assert_sound,
    begin,
    child,
    completed,
    created,
    finished,
    noted,
    opened,
    started,
    woken,
    worker,
)

from holdfast.store import News, open_store
from holdfast.store.peers import LARGEST, Peers, datagrams, read_datagram

OTHER = """
import asyncio, sys
from holdfast.store import open_store
async def main():
    async with open_store(sys.argv[1]) as store:
        print("ready", flush=True)
        sys.stdin.readline()
        answer = await store.deliver("t", b"[1]", "d")
        print(answer.run, answer.first)
asyncio.run(main())
"""


async def test_a_payload_from_another_process_is_heard_by_event(tmp_path):
    """HOTPATH 13: the worker's process wakes without polling; the fact is in the log when it does."""
    url = f"sqlite:///{tmp_path}/store.db"
    async with open_store(url) as store:
        await store.enlist(worker("w1"))
        last = await begin(store, "r", owner="w1")
        await store.append("r", [opened("t#1")], after=last)
        heard = asyncio.get_running_loop().create_future()
        store.listen(lambda news: heard.done() or heard.set_result(list(news)))
        process = child(OTHER, url)
        assert await asyncio.to_thread(process.stdout.readline) == "ready\n"
        process.stdin.write("\n")
        process.stdin.flush()
        (item,) = await asyncio.wait_for(heard, PATIENCE)
        assert item == News("r", "w1", True, False, True)
        assert (await store.read("r"))[-1].type == "hook_received"
        assert await asyncio.to_thread(finished, process) == f"r {last + 2}\n"


WRITER = """
import asyncio, sys
from holdfast.store import open_store
from holdfast.errors import StaleLog
from store_kit import noted, woken
async def main():
    won = 0
    async with open_store(sys.argv[1]) as store:
        print("ready", flush=True)
        sys.stdin.readline()
        async def one(run):
            nonlocal won
            for n in range(30):
                await store.append(run, [woken(f"{sys.argv[2]}-{n}")])
                after = (await store.head(run)).position
                try:
                    await store.append(run, [noted(f"n#{n}")], after=after)
                    won += 1
                except StaleLog:
                    pass
        await asyncio.gather(*(one(f"r{n}") for n in range(4)))
    print(won)
asyncio.run(main())
"""


async def test_four_processes_write_one_file(tmp_path):
    """L1, L4: dense positions, one winner for each command, sound projections."""
    url = f"sqlite:///{tmp_path}/store.db"
    async with open_store(url) as store:
        for n in range(4):
            await begin(store, f"r{n}")
        children = [child(WRITER, url, n) for n in range(4)]
        for process in children:
            await asyncio.to_thread(process.stdout.readline)
        for process in children:
            process.stdin.write("\n")
            process.stdin.flush()
        won = sum([int(await asyncio.to_thread(finished, process)) for process in children])
        logs = [await assert_sound(store, f"r{n}") for n in range(4)]
        assert sum(e.type == "noted" for log in logs for e in log) == won
        assert [sum(e.type == "woken" for e in log) for log in logs] == [120] * 4


async def test_only_what_others_can_use_is_sent(tmp_path):
    """The hot path of a worker's own runs sends nothing; free and ended runs and outside facts are told."""
    url = f"sqlite:///{tmp_path}/store.db"
    async with open_store(url) as store, open_store(url) as other:
        sent = []
        store._peers.send = lambda news, every: sent.extend(news)
        await store.enlist(worker("w1"))
        last = await begin(store, "r", "a#1", owner="w1")
        await store.append("r", [completed("a#1"), noted("n#1")], after=last)
        assert sent == []
        await begin(store, "free", "a#1")
        assert [item.run for item in sent] == ["free"]
        await store.append("free", [started("a#1", 2)])
        await store.append("r", [woken("w")])
        assert sent[-1] == News("r", "w1", True, False, True)
        await store.release("w1", {"r": 1})
        assert sent[-1] == News("r", None, False, False, True)
        del other


def test_news_are_split_and_survive_the_way(tmp_path):
    """A datagram has a size; names may be anything."""
    news = [News(f'run-{n}-"ü\n', None if n % 2 else "w", True, False, True) for n in range(3000)]
    parts = list(datagrams(news))
    assert len(parts) > 1
    assert all(len(part) < LARGEST for part in parts)
    assert [item for part in parts for item in read_datagram(part)] == news
    for junk in (b"", b"junk", b"[1]", b'{"a": 1}', b'[["r"]]'):
        assert read_datagram(junk) == []


async def test_sockets_are_gone_when_their_store_is_closed(tmp_path):
    """Nothing is left; what a dead process left is removed by the first that sends."""
    url = f"sqlite:///{tmp_path}/store.db"
    folder = tmp_path / "store.db-peers"
    async with open_store(url) as quiet:
        assert not folder.exists()
        async with open_store(url) as listening:
            listening.listen(lambda news: None)
            assert len(os.listdir(folder)) == 1
            dead = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
            dead.bind(str(folder / "999-dead.sock"))
            dead.close()
            await quiet.append("r", [created()], after=0)
            assert "999-dead.sock" not in os.listdir(folder)
        assert not folder.exists()


async def test_a_listener_that_comes_at_once_after_another_is_found(tmp_path):
    """The folder's time of change is coarse: a second socket in the same tick of it must not be missed."""
    url = f"sqlite:///{tmp_path}/store.db"
    async with open_store(url) as sender, open_store(url) as one, open_store(url) as two:
        for n, store in enumerate((one, two)):
            heard = asyncio.get_running_loop().create_future()
            store.listen(lambda news, heard=heard: heard.done() or heard.set_result(news))
            await sender.append(f"r{n}", [created()], after=0)
            assert [item.run for item in await asyncio.wait_for(heard, PATIENCE)] == [f"r{n}"]


async def test_a_path_too_long_for_a_socket_goes_by_the_open_folder(tmp_path):
    """107 bytes are a socket's limit, not the store's."""
    folder = tmp_path / ("x" * 60) / ("y" * 60)
    folder.mkdir(parents=True)
    receiver, sender = Peers(str(folder / "store.db")), Peers(str(folder / "store.db"))
    heard = asyncio.get_running_loop().create_future()
    receiver.listen(asyncio.get_running_loop(), heard.set_result)
    assert len(os.listdir(receiver.folder)) == 1
    news = [News("r", None, True, False, True)]
    sender.send(news)
    assert await asyncio.wait_for(heard, PATIENCE) == news
    receiver.close()
    sender.close()
    assert not receiver.folder.exists()


async def test_a_receiver_that_is_full_or_a_folder_that_is_missing_fails_no_commit(tmp_path):
    """Notifications only make it faster (L14)."""
    async with open_store(f"sqlite:///{tmp_path}/store.db") as store:
        folder = tmp_path / "store.db-peers"
        folder.mkdir()
        deaf = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        deaf.bind(str(folder / "1-deaf.sock"))
        for _ in range(400):
            store._peers.send([News("r" * 1000, None, True, False, True)])
        await begin(store)
        deaf.close()
        (folder / "1-deaf.sock").unlink()
        folder.rmdir()
        await begin(store, "r2")
        await assert_sound(store, "r2")
