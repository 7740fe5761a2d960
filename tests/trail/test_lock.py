"""One at a time: threads, processes, whatever becomes of the holder or of the file."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter

import pytest
from patience import PATIENCE
from trail_kit import at_once, wait_for_a_waiter, wait_until

from holdfast.errors import TrailError, TrailLocked
from holdfast.trail import lock


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "locked"
    path.touch()
    return str(path)


def test_threads_exclude_each_other(path):
    inside, seen = [], []

    def visit():
        for _ in range(20):
            with lock.locked(path):
                inside.append(None)
                seen.append(len(inside))
                inside.pop()

    assert at_once(*[visit] * 6) == [None] * 6
    assert seen == [1] * 120


def test_processes_exclude_each_other(path):
    code = (
        "import sys; from holdfast.trail import lock\n"
        "for _ in range(100):\n"
        "    with lock.locked(sys.argv[1]) as fd:\n"
        "        import os; n = int(os.pread(fd, 9, 0) or b'0'); os.pwrite(fd, b'%d' % (n + 1), 0)"
    )
    children = [subprocess.Popen([sys.executable, "-c", code, path]) for _ in range(4)]
    assert [child.wait(PATIENCE) for child in children] == [0] * 4
    with open(path) as file:
        assert file.read() == "400"


def test_who_waits_too_long_is_told_who_holds_it(path):
    with lock.locked(path), pytest.raises(TrailLocked) as told:
        lock.acquire(path, timeout=0.01)
    assert f"waited 0.01 s for process {os.getpid()} on {os.uname().nodename}; stop it, or try again" in str(
        told.value
    )


def test_a_holder_that_has_signed_is_named_where_the_kernel_names_none(path, monkeypatch):
    monkeypatch.setattr(
        lock, "_locked_by", lambda status: None
    )  # another host's holder is in no table of ours
    with lock.locked(path) as fd:
        assert lock.holder(path) == "another writer"
        lock.sign(fd)
        assert lock.holder(path) == f"process {os.getpid()} on {os.uname().nodename}"


def test_a_lock_that_comes_after_its_waiter_has_left_is_given_back(path):
    fd = lock.acquire(path)
    with pytest.raises(TrailLocked):
        lock.acquire(path, timeout=0.01)
    lock.release(fd)
    with lock.locked(path, timeout=PATIENCE):
        pass
    wait_until(lambda: not lock._open, "the last open file to be closed")


def test_a_file_that_was_replaced_while_somebody_waited_is_opened_again(path):
    fd, got = lock.acquire(path), []

    def wait():
        with lock.locked(path) as mine:
            got.append(os.fstat(mine).st_ino)

    thread = threading.Thread(target=wait)
    thread.start()
    wait_for_a_waiter()
    with open(f"{path}.new", "w") as new:
        os.replace(new.name, path)
    lock.release(fd)
    thread.join()
    assert got == [os.stat(path).st_ino]


def test_a_file_that_went_away_while_somebody_waited_is_not_made_again(path):
    fd, answers = lock.acquire(path), []
    thread = threading.Thread(target=lambda: answers.extend(at_once(lambda: lock.acquire(path))))
    thread.start()
    wait_for_a_waiter()
    os.unlink(path)
    lock.release(fd)
    thread.join()
    assert [type(answer) for answer in answers] == [FileNotFoundError]
    assert not os.path.exists(path)
    assert not lock._open


def test_a_symbolic_link_is_refused(path):
    os.symlink(path, f"{path}.link")
    with pytest.raises(TrailError, match="symbolic link"):
        lock.acquire(f"{path}.link")
    assert not lock._open


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_child_forked_beside_a_waiter_that_gave_up_does_not_keep_the_lock(path):
    code = (
        "import sys; from holdfast.trail import lock\n"
        "with lock.locked(sys.argv[1]): print(flush=True); sys.stdin.readline()"
    )
    holder = subprocess.Popen(
        [sys.executable, "-c", code, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    holder.stdout.readline()
    with pytest.raises(TrailLocked):
        lock.acquire(path, timeout=0.01)  # its thread still waits
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(write)
        os.read(read, 1)  # lives on, and does nothing
        os._exit(0)
    try:
        holder.communicate("go\n", timeout=PATIENCE)
        with lock.locked(path, timeout=PATIENCE):
            pass
    finally:
        os.close(read)
        os.close(write)
        os.waitpid(pid, 0)


def test_a_child_of_a_killed_holder_does_not_keep_the_lock(path):
    code = (
        "import os, sys; from holdfast.trail import lock\n"
        "lock.acquire(sys.argv[1])\n"
        "child = os.fork()\n"
        "print(child, flush=True) if child else None\n"
        "sys.stdin.read()"
    )
    holder = subprocess.Popen(
        [sys.executable, "-c", code, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    child = int(holder.stdout.readline())
    holder.kill()
    holder.wait()
    os.kill(child, 0)  # it lives
    with lock.locked(path, timeout=PATIENCE):
        pass
    holder.communicate()  # closes what the child reads, so it ends


def test_an_interrupted_wait_leaves_nothing_behind(path):
    fd = lock.acquire(path)
    mine = threading.get_ident()

    def interrupt():
        wait_for_a_waiter()
        signal.pthread_kill(mine, signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    thread.start()
    with pytest.raises(KeyboardInterrupt):
        lock.acquire(path, timeout=30)
    thread.join()
    lock.release(fd)
    with lock.locked(path, timeout=PATIENCE):
        pass
    wait_until(lambda: not lock._open, "the last open file to be closed")


def test_a_wait_that_is_interrupted_before_its_thread_runs_closes_nothing_under_it(path, monkeypatch):
    """Else the thread would lock whatever has been opened under the file's number since."""
    begun = []

    def interrupted(waiter):
        begun.append(waiter)
        raise KeyboardInterrupt

    fd = lock.acquire(path)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(lock._Waiter, "start", interrupted)
        lock.acquire(path)
    with lock.locked(f"{path}.other", os.O_RDWR | os.O_CREAT):  # under the number, if it was free
        begun[0].start()
        lock.release(fd)
        begun[0].join(PATIENCE)
        with pytest.raises(TrailLocked), lock.locked(f"{path}.other", timeout=0.01):
            pass
    wait_until(lambda: not lock._open, "the last open file to be closed")


def test_nobody_starves(path):
    """Waiters are served in the order in which they came, roughly: while all want it, each gets its turns."""
    turns = Counter(dict.fromkeys(range(4), 0))
    stop = time.monotonic() + PATIENCE

    def visit(number):
        while min(turns.values()) < 5 and time.monotonic() < stop:
            with lock.locked(path):
                turns[number] += 1

    at_once(*[lambda n=n: visit(n) for n in range(4)])
    assert min(turns.values()) >= 5, turns
