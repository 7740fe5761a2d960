"""What counts as impure: the data of `guard`, which imports nothing of what it names.

Guarantees: a call is described by the module and name that the interpreter itself gives it
(`time.time.__module__`, an audit event's name), so that a module which is loaded only later, or
never, costs nothing. Rests on those names being those of CPython; `tests/engine/test_guard.py`
calls every entry that the platform has. Rejected: a table keyed by the function objects, which
would import twenty modules and still miss bound methods (`datetime.now` of a subclass has another
identity than that of `datetime`).

Left out on purpose: locks (asyncio and logging take them), `os.uname` and `os.cpu_count` (libraries
ask them to choose a code path), `print`, writing to a file that is open already (a repeated effect
outside the run, which check mode shows, but no value flows back), `socket.send` (it would cost each
`coroutine.send` a second look; `sendall`, `recv` and `connect` are here).
"""

from __future__ import annotations

import dis
from collections.abc import Mapping
from types import FrameType
from typing import Any, Final

CLOCK: Final = "clock"
SLEEP: Final = "sleep"
RANDOM: Final = "random"
UUID: Final = "uuid"
EFFECT: Final = "effect"
WATCH: Final = "watch"
ORDER: Final = "order"
SEED: Final = "seed"
CRYPTO: Final = "crypto"
NODE: Final = "node"

ADVICE: Final = {
    CLOCK: "would give another value on replay; use hf.now(), or make the call in a step",
    SLEEP: "would block the worker, and again on replay; use await hf.sleep(...) or"
    " asyncio.sleep(...), or make the call in a step",
    RANDOM: "would give another value on replay; use hf.random(), or make the call in a step",
    UUID: "would give another value on replay; use hf.uuid4(), or make the call in a step",
    SEED: "without a seed would give other values on replay; use hf.random(), or give it a seed"
    " that comes from the run",
    CRYPTO: "would give another value on replay; use hf.random() or hf.uuid4(), or make the call in"
    " a step, which records the secret in the log",
    NODE: "would give another value on another machine; use hf.uuid4(), or make the call in a step",
    EFFECT: "would be done again on replay and may answer otherwise; make it a step",
    WATCH: "would switch off the watch over impure calls; make the call outside the workflow",
    ORDER: "would give results in the order of memory addresses; import asyncio and call"
    " asyncio.as_completed, which Holdfast keeps deterministic",
}


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


_POSIX: Final = _words(
    "stat lstat fstat access getcwd getcwdb readlink statvfs fstatvfs pathconf"
    " fpathconf read readv pread preadv write writev pwrite pwritev lseek close"
    " closerange dup dup2 pipe pipe2 fsync fdatasync sync sendfile splice"
    " copy_file_range memfd_create eventfd mkfifo mknod openpty getpid getppid"
    " getloadavg wait wait3 wait4 waitpid waitid killpg abort _exit nice umask"
)
_BUILTINS: Final[dict[str, dict[str, tuple[str, ...]]]] = {
    CLOCK: {
        "time": _words(
            "time time_ns monotonic monotonic_ns perf_counter perf_counter_ns process_time"
            " process_time_ns thread_time thread_time_ns clock_gettime clock_gettime_ns"
            " localtime gmtime ctime asctime strftime"
        ),
        "posix": ("times",),
        "nt": ("times",),
    },
    SLEEP: {"time": ("sleep",)},
    RANDOM: {"posix": ("urandom", "getrandom"), "nt": ("urandom",)},
    UUID: {"_uuid": ("generate_time_safe", "UuidCreate")},
    EFFECT: {
        "posix": _POSIX,
        "nt": (*_POSIX, "_path_exists", "_path_isfile", "_path_isdir", "_path_islink"),
        "select": ("select", "poll"),
        "_signal": _words(
            "signal alarm setitimer getitimer pause raise_signal set_wakeup_fd siginterrupt"
            " pthread_sigmask sigwait sigwaitinfo sigtimedwait sigpending"
        ),
        "_socket": _words(
            "gethostname getaddrinfo getnameinfo gethostbyname gethostbyname_ex gethostbyaddr"
            " socketpair getservbyname getservbyport getprotobyname if_nameindex sethostname dup"
            " close"
        ),
        "_thread": ("start_new_thread", "start_new", "start_joinable_thread"),
        "_posixsubprocess": ("fork_exec",),
        "resource": ("getrusage", "getrlimit", "setrlimit", "prlimit"),
        "fcntl": ("fcntl", "ioctl", "flock", "lockf"),
        "pwd": ("getpwall", "getpwnam", "getpwuid"),
    },
    WATCH: {
        "sys": ("setprofile",),
        "sys.monitoring": _words(
            "use_tool_id clear_tool_id free_tool_id register_callback set_events set_local_events restart_events"
        ),
    },
}

# (module, name) of a builtin function -> kind
BUILTINS: Final[dict[tuple[str, str], str]] = {
    (module, name): kind
    for kind, modules in _BUILTINS.items()
    for module, names in modules.items()
    for name in names
}

# Pure when given arguments: how many it takes until the clock is not asked …
CLOCK_IF_FEWER: Final = {"localtime": 1, "gmtime": 1, "ctime": 1, "asctime": 1, "strftime": 2}
# … and with these an argument that is None asks it all the same.
CLOCK_IF_NONE: Final = frozenset({"localtime", "gmtime", "ctime"})

# (module, name) of a C class -> the methods watched on its instances and on those of subclasses
_METHODS: Final[dict[tuple[str, str], tuple[str, ...]]] = {
    ("datetime", "datetime"): ("now", "utcnow"),
    ("datetime", "date"): ("today",),
    ("_random", "Random"): ("random", "getrandbits", "seed", "getstate", "setstate"),
    ("_socket", "socket"): _words(
        "accept recv recv_into recvfrom recvfrom_into recvmsg recvmsg_into sendall sendmsg"
        " bind listen connect connect_ex"
    ),
    ("_io", "_IOBase"): _words("read readline readlines readinto readinto1 read1 readall peek"),
    ("select", "poll"): ("poll",),
    ("select", "epoll"): ("poll",),
    ("select", "kqueue"): ("control",),
    ("sqlite3", "Connection"): _words("execute executemany executescript commit rollback backup"),
    ("sqlite3", "Cursor"): _words("execute executemany executescript fetchone fetchmany fetchall"),
    ("apsw", "Connection"): ("execute", "executemany"),
    ("apsw", "Cursor"): ("execute", "executemany", "fetchall"),
}
METHODS: Final = {
    name: frozenset(place for place, names in _METHODS.items() if name in names)
    for name in frozenset[str]().union(*_METHODS.values())
}

NAMES: Final = frozenset(name for _, name in BUILTINS) | frozenset(METHODS)

# Python functions that reach no watched builtin, or swallow what it raises: (module, name) -> kind
FUNCTIONS: Final = {
    ("asyncio.tasks", "as_completed"): ORDER,
    ("uuid", "getnode"): NODE,  # it caches, and its getters are tried under a bare `except:`
    ("concurrent.futures.thread", "submit"): EFFECT,  # where an idle thread is there already
    ("concurrent.futures.process", "submit"): EFFECT,
}
FUNCTION_MODULES: Final = frozenset(module for module, _ in FUNCTIONS)

# Audit events (PEP 578), which are raised whoever calls: they see the calls that C code makes.
EVENTS: Final = frozenset(
    {
        *_words(
            "open builtins.input webbrowser.open pty.spawn mmap.__new__"
            " _thread.start_new_thread _thread.start_joinable_thread sqlite3.connect"
            " urllib.Request http.client.connect http.client.send ftplib.connect ftplib.sendcmd"
            " smtplib.connect smtplib.send poplib.connect poplib.putline imaplib.open"
            " imaplib.send nntplib.connect nntplib.putline telnetlib.Telnet.open"
            " telnetlib.Telnet.write subprocess.Popen tempfile.mkstemp tempfile.mkdtemp"
            " ctypes.dlopen ctypes.dlsym fcntl.fcntl fcntl.flock fcntl.ioctl fcntl.lockf"
            " glob.glob glob.glob/2 pathlib.Path.glob pathlib.Path.rglob shutil.chown"
            " shutil.copyfile shutil.copymode shutil.copystat shutil.copytree"
            " shutil.make_archive shutil.move shutil.rmtree shutil.unpack_archive"
            " signal.pthread_kill syslog.openlog syslog.syslog resource.setrlimit"
            " resource.prlimit"
        ),
        *(
            f"os.{name}"
            for name in _words(
                "listdir scandir walk fwalk remove rename mkdir rmdir chmod chown link symlink"
                " truncate utime chdir lockf chflags getxattr setxattr listxattr removexattr system"
                " exec fork forkpty posix_spawn spawn kill killpg putenv unsetenv startfile"
                " startfile/2 listdrives listmounts listvolumes"
            )
        ),
        *(
            f"socket.{name}"
            for name in _words(
                "__new__ bind connect sendto sendmsg getaddrinfo getnameinfo gethostbyname"
                " gethostbyaddr gethostname sethostname getservbyname getservbyport"
            )
        ),
    }
)

# Modules under whose frames an impure call is allowed, since its value does not flow back into the
# workflow: imports must always work, and a log line or a warning reads a clock or a source file.
EXEMPT: Final = frozenset(
    {
        *_words(
            "_frozen_importlib _frozen_importlib_external importlib._bootstrap"
            " importlib._bootstrap_external zipimport logging logging.handlers logging.config"
            " warnings traceback linecache tokenize inspect weakref"
        ),
        # time zone rules: the same wherever the code runs, and read once per process
        *_words("zoneinfo zoneinfo._common zoneinfo._tzpath zoneinfo._zoneinfo"),
    }
)

# A refusal names the outermost function of these modules, which is what the author wrote:
# `uuid.uuid4()`, not the `posix.urandom()` in it; and theirs is the kind.
NAMED: Final[dict[str, str]] = {
    "random": RANDOM,
    "secrets": CRYPTO,
    "uuid": UUID,
    **dict.fromkeys(
        _words(
            "os genericpath posixpath ntpath pathlib pathlib._local pathlib._abc tempfile"
            " shutil glob fileinput getpass subprocess pty multiprocessing.context"
            " multiprocessing.process multiprocessing.popen_fork"
            " multiprocessing.popen_spawn_posix threading concurrent.futures.thread"
            " concurrent.futures.process signal selectors socket ssl urllib.request http.client"
            " smtplib ftplib webbrowser"
        ),
        EFFECT,
    ),
}

# What modules are called by those who import them.
PUBLIC_NAMES: Final = {
    "posix": "os",
    "nt": "os",
    "genericpath": "os.path",
    "posixpath": "os.path",
    "ntpath": "os.path",
    "pathlib._local": "pathlib",
    "pathlib._abc": "pathlib",
    "_thread": "threading",
    "_socket": "socket",
    "_signal": "signal",
    "_uuid": "uuid",
    "_random": "random",
    "_posixsubprocess": "subprocess",
    "concurrent.futures.thread": "concurrent.futures",
    "concurrent.futures.process": "concurrent.futures",
}

_FILLERS: Final = frozenset({"PRECALL", "EXTENDED_ARG", "CACHE", "KW_NAMES"})


def is_given_a_time(frame: FrameType, name: str) -> bool:
    """Whether this call of time.localtime (or the like) provably does not ask the clock."""
    code = [i for i in dis.get_instructions(frame.f_code) if i.opname not in _FILLERS]
    at = next((n for n, i in enumerate(code) if i.offset == frame.f_lasti), 0)
    call = code[at]
    if call.opname != "CALL" or (call.arg or 0) < CLOCK_IF_FEWER[name]:
        return False
    return name not in CLOCK_IF_NONE or _is_never_none(code[:at], frame)


def _is_never_none(code: list[dis.Instruction], frame: FrameType) -> bool:
    """Whether the value that `code` ends by pushing is provably something else than None."""
    last = code[-1]
    if last.opname in {"BINARY_OP", "UNARY_NEGATIVE"}:
        return True
    if last.opname == "CALL":
        # A clock of the log is the usual case: time.gmtime(hf.now().timestamp())
        return last.arg == 0 and code[-2].argval in {"timestamp", "total_seconds"}
    if last.opname == "LOAD_ATTR" and code[-2].opname.startswith("LOAD_"):
        owner = _value(code[-2], frame)
        # the instance's own dict: a property could answer otherwise the second time
        return getattr(owner, "__dict__", {}).get(last.argval) is not None
    return _value(last, frame) is not None


def _value(instruction: dis.Instruction, frame: FrameType) -> Any:
    """The value that a load instruction pushes; None if that cannot be told."""
    name = instruction.argval
    if instruction.opname == "LOAD_CONST":
        return name
    if not instruction.opname.startswith(("LOAD_FAST", "LOAD_DEREF", "LOAD_NAME", "LOAD_GLOBAL")):
        return None
    if isinstance(name, tuple):  # LOAD_FAST_LOAD_FAST
        name = name[-1]
    scopes: list[Mapping[str, Any]] = [frame.f_globals]
    if instruction.opname != "LOAD_GLOBAL":
        scopes.insert(0, frame.f_locals)
    return next((scope[name] for scope in scopes if name in scope), None)
