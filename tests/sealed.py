"""A network namespace of a process's own, in which the kernel counts every packet that anything in it tries to send."""

import ctypes
import fcntl
import pathlib
import socket
import struct

_CLONE_NEWUSER, _CLONE_NEWNET = 0x10000000, 0x40000000  # of linux/sched.h
_SIOCSIFFLAGS, _IFF_UP_AND_RUNNING = 0x8914, 0x41
# Packets without a route, which all are but those to this machine; and connections and datagrams to this machine.
_COUNTERS = ("Ip:OutNoRoutes", "Ip6OutNoRoutes", "Tcp:ActiveOpens", "Udp:OutDatagrams", "Udp6OutDatagrams")


def seal() -> bool:
    """Leave the network of this process for a new one that has no way out; return whether that is permitted."""
    unshare = ctypes.CDLL(None).unshare
    if unshare(_CLONE_NEWNET) and unshare(_CLONE_NEWUSER | _CLONE_NEWNET):
        return False
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        fcntl.ioctl(any_socket, _SIOCSIFFLAGS, struct.pack("16sH14x", b"lo", _IFF_UP_AND_RUNNING))
    return True


def attempts() -> int:
    """Return how many connections and datagrams were tried in this network, by whatever code."""
    lines = [line.split() for line in pathlib.Path("/proc/net/snmp").read_text().splitlines()]
    found = {}
    for names, values in zip(lines[::2], lines[1::2], strict=True):
        found |= {names[0] + name: value for name, value in zip(names[1:], values[1:], strict=True)}
    found |= dict(line.split() for line in pathlib.Path("/proc/net/snmp6").read_text().splitlines())
    return sum(int(found.get(name, 0)) for name in _COUNTERS)
