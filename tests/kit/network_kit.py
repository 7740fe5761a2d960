"""A machine of its own for a worker, as far as its network goes: a network namespace that can be cut off.

Where the system does not let us make one (`ip netns add` needs root), the tests are skipped with a line.
"""

import itertools
import os
import shutil
import subprocess

import pytest

_count = itertools.count(1)


class Machine:
    """A namespace and the cable to it. `inside` goes before a command that is to run there."""

    def __init__(self):
        number = next(_count)
        self.name = f"hf-{os.getpid()}-{number}"
        self._cable = f"hf{os.getpid() % 100_000}x{number}"  # a name has at most 15 characters
        net = f"10.213.{os.getpid() % 250}.{number * 4 % 256}".rpartition(".")
        self.outside, inner = (f"{net[0]}.{int(net[2]) + n}" for n in (1, 2))
        self.inside = ("ip", "netns", "exec", self.name)
        end = f"{self._cable}i"
        _ip("netns", "add", self.name)
        try:
            _ip("link", "add", self._cable, "type", "veth", "peer", "name", end, "netns", self.name)
            _ip("address", "add", f"{self.outside}/30", "dev", self._cable)
            _ip("link", "set", self._cable, "up")
            _ip("-n", self.name, "address", "add", f"{inner}/30", "dev", end)
            _ip("-n", self.name, "link", "set", end, "up")
        except BaseException:
            self.remove()
            raise

    def cut(self):
        """Nothing comes through, in either direction, and nobody is told."""
        _ip("link", "set", self._cable, "down")

    def heal(self):
        _ip("link", "set", self._cable, "up")

    def remove(self):
        subprocess.run(["ip", "link", "delete", self._cable], capture_output=True)
        subprocess.run(["ip", "netns", "delete", self.name], capture_output=True)


def machine():
    """A machine; to be removed."""
    if shutil.which("ip") is None:
        pytest.skip("cut networks are not tested: there is no `ip` (iproute2)")
    try:
        return Machine()
    except subprocess.CalledProcessError as error:
        pytest.skip(f"cut networks are not tested: {error.stderr.decode().strip()}")


def _ip(*words):
    subprocess.run(["ip", *words], check=True, capture_output=True)
