"""What a worker may touch, held by the kernel: files by Landlock, sockets by seccomp, no capability, an own /dev/shm.

All of it by plain system calls that need no privilege and no tool, on a process that has one thread; what it forks or
executes is held by the same. Landlock also keeps it from tracing other processes, and so from their environment, memory
and descriptors, and (Linux 6.12) from sending them signals.

Source: Linux, Documentation/userspace-api/landlock.rst and seccomp_filter.rst.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import platform
import socket
import struct
import sys
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

__all__ = [
    "MACHINE",
    "SHARED_MEMORY_BYTES_MAX",
    "NetworkNotClosedError",
    "Reach",
    "confine",
    "landlock_abi",
    "refuse_metadata_addresses",
    "seccomp_known",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Reach:
    """What one worker may touch, besides its own folder, the programs and libraries of the machine, and Python's."""

    reads: tuple[str, ...] = ()
    """Files and folders that it may list and read: its app's files."""

    inputs: tuple[str, ...] = ()
    """Folders whose files it may read where it knows their names; it cannot list them."""

    writes: tuple[str, ...] = ()
    """Folders that it may do everything in."""

    network: bool = True
    """Whether it may make sockets to other machines, and to this one."""

    metadata_addresses: bool = False
    """Whether Python code may connect to the addresses at which clouds hand out credentials (169.254.0.0/16)."""

    def to_json(self) -> dict[str, Any]:
        """For the zygote."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Reach:
        """The inverse of `to_json`."""
        values: dict[str, Any] = {name: tuple(v) if isinstance(v, list) else v for name, v in data.items()}
        return cls(**values)


class NetworkNotClosedError(OSError):
    """A worker was to have no network, and this kernel or machine cannot see to that."""

    def __init__(self, reason: str) -> None:
        self.reason = reason
        super().__init__(f"the worker was to have no network, but {reason}; run its node with `executor: bubblewrap`")


# -- Landlock

_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446  # the same on all machines
_RULE_PATH_BENEATH = 1
_EXECUTE, _WRITE_FILE, _READ_FILE, _READ_DIR = 1, 2, 4, 8
_TRUNCATE = 1 << 14
_READ = _EXECUTE | _READ_FILE | _READ_DIR
_OF_FILES = _EXECUTE | _WRITE_FILE | _READ_FILE | _TRUNCATE | 1 << 15
_SCOPES = 3  # abstract unix sockets, signals
_O_PATH = 0o10000000

MACHINE = (
    # Programs and libraries; of /etc what names, time zones and certificates are looked up in, and no more: an operator
    # keeps secrets there. /proc shows every process's command line, but not its environment, memory or descriptors.
    *(
        "/usr",
        "/lib",
        "/lib32",
        "/lib64",
        "/bin",
        "/sbin",
        "/nix/store",
        "/proc",
        "/sys/devices/system",
        "/sys/fs/cgroup",
    ),
    *("/etc/ssl", "/etc/pki", "/etc/ca-certificates", "/etc/resolv.conf", "/etc/hosts", "/etc/host.conf"),
    *("/etc/nsswitch.conf", "/etc/gai.conf", "/etc/services", "/etc/protocols", "/etc/localtime", "/etc/timezone"),
    *("/etc/passwd", "/etc/group", "/etc/ld.so.cache", "/etc/mime.types", "/etc/fonts", "/etc/os-release"),
    *("/etc/alternatives", "/etc/magic"),
    *("/dev/zero", "/dev/random", "/dev/urandom"),
)


@cache
def _libc() -> Any:
    return ctypes.CDLL(None, use_errno=True)


def landlock_abi() -> int:
    """The kernel's version of Landlock; 0 where it has none, or was started without it."""
    if sys.platform != "linux":
        return 0
    return max(0, int(_libc().syscall(_CREATE_RULESET, None, 0, 1)))


def _handled(abi: int) -> tuple[int, bytes]:
    """All rights to files that this kernel can withhold, and the ruleset's attributes as it knows them."""
    rights = (1 << 13) - 1
    for since, right in ((2, 13), (3, 14), (5, 15)):
        rights |= (abi >= since) << right
    if abi >= 6:
        return rights, struct.pack("=QQQ", rights, 0, _SCOPES)
    return rights, struct.pack("=Q", rights)


def _close_files(reach: Reach, *, shared_memory: bool) -> bool:
    """Withhold all files but those of `reach`; whether the kernel can.

    Args:
        shared_memory: whether /dev/shm is the process's own.
    """
    abi = landlock_abi()
    if not abi:
        return False
    libc = _libc()
    handled, attributes = _handled(abi)
    ruleset = libc.syscall(_CREATE_RULESET, attributes, len(attributes), 0)
    if ruleset < 0:
        return False

    def allow(paths: Iterable[str], rights: int) -> None:
        for path in paths:
            try:
                fd = os.open(path, _O_PATH | os.O_CLOEXEC)
            except OSError:  # not on this machine
                continue
            allowed = rights & handled if os.path.isdir(path) else rights & handled & _OF_FILES  # noqa: PTH112
            rule = struct.pack("=Qi", allowed, fd)
            failed = libc.syscall(_ADD_RULE, ruleset, _RULE_PATH_BENEATH, rule, 0)
            os.close(fd)
            if failed:
                raise OSError(ctypes.get_errno(), f"Landlock refuses a rule for {path}")

    everything = handled & ~(1 << 6 | 1 << 11)  # but for making devices
    python = {sys.prefix, sys.exec_prefix, sys.base_prefix, sys.base_exec_prefix, *filter(None, sys.path)}
    allow((*MACHINE, *python, *reach.reads), _READ)
    allow(reach.inputs, _READ_FILE)
    allow(("/dev/null",), _READ_FILE | _WRITE_FILE | _TRUNCATE)
    allow(reach.writes, everything)
    # The locks of `multiprocessing` are there. Where it is everybody's, files of known names alone: theirs are random.
    allow(("/dev/shm",), everything if shared_memory else everything & ~_READ_DIR)  # noqa: S108
    failed = libc.syscall(_RESTRICT_SELF, ruleset, 0)
    os.close(ruleset)
    if failed:
        raise OSError(ctypes.get_errno(), "Landlock refuses to restrict this process")
    return True


# -- shared memory

SHARED_MEMORY_BYTES_MAX = 64 << 20
"""Size of a worker's own /dev/shm; docker's, too."""

_CLONE_NEWNS, _CLONE_NEWUSER = 0x20000, 0x10000000
_MS_NOSUID, _MS_NODEV, _MS_REC, _MS_PRIVATE = 2, 4, 0x4000, 0x40000


def _own_shared_memory() -> bool:
    """Mount a /dev/shm of this process's own, of bounded size, which goes with it; whether it may.

    What is left in the machine's would stay in memory for good. Root may do this; others where user namespaces are
    allowed.
    """
    libc = _libc()
    if libc.unshare(_CLONE_NEWNS) != 0:
        user, group = os.getuid(), os.getgid()
        if libc.unshare(_CLONE_NEWNS | _CLONE_NEWUSER) != 0:
            return False
        try:
            for file, text in (
                ("setgroups", "deny"),
                ("uid_map", f"{user} {user} 1"),
                ("gid_map", f"{group} {group} 1"),
            ):
                Path("/proc/self", file).write_text(text)
        except OSError:
            return False
    if libc.mount(b"none", b"/", None, _MS_REC | _MS_PRIVATE, None) != 0:
        return False
    options = f"size={SHARED_MEMORY_BYTES_MAX},mode=700".encode()
    return bool(libc.mount(b"tailrace", b"/dev/shm", b"tmpfs", _MS_NOSUID | _MS_NODEV, options) == 0)


# -- seccomp

_ALLOW, _ERRNO = 0x7FFF0000, 0x00050000
_LOAD, _JUMP_IF_EQUAL, _JUMP_IF_AT_LEAST, _RETURN = 0x20, 0x15, 0x35, 0x06
_AT_NUMBER, _AT_ARCH, _AT_FIRST_ARGUMENT = 0, 4, 16

_CALLS: Mapping[str, tuple[int, int, tuple[int, ...]]] = {
    # Machine -> audit's number of it, socket(), and what node code has no use for but attackers have:
    # io_uring_setup (makes sockets past this filter), bpf, perf_event_open, userfaultfd, add_key, request_key, keyctl.
    "x86_64": (0xC000003E, 41, (425, 321, 298, 323, 248, 249, 250)),
    "aarch64": (0xC00000B7, 198, (425, 280, 241, 282, 217, 218, 219)),
}


def seccomp_known() -> bool:
    """Whether sockets can be withheld on this machine."""
    return sys.platform == "linux" and platform.machine() in _CALLS


def _close_sockets(network: bool) -> None:
    """Let it make sockets of the internet's families alone, or none. Pairs of sockets are always allowed.

    No unix sockets: at the other end may be a service that does all for whoever reaches it (docker's), and neither
    Landlock nor seccomp can tell one from the other.
    """
    if not seccomp_known():
        if not network:
            raise NetworkNotClosedError(f"its machine ({platform.machine()}) is not known to the filter")
        return
    arch, socket_call, forbidden = _CALLS[platform.machine()]
    families = (socket.AF_INET, socket.AF_INET6, 16) if network else ()  # 16: netlink, which lists interfaces
    refused, unknown, missing = _ERRNO | errno.EACCES, _ERRNO | errno.ENOSYS, _ERRNO | errno.ENOSYS
    # Each line: operation, value, and what happens if it holds; otherwise on to the next.
    program: list[tuple[int, int, int, int]] = []

    def unless(value: int, verdict: int) -> None:
        program.extend([(_JUMP_IF_EQUAL, 1, 0, value), (_RETURN, 0, 0, verdict)])

    def when(operation: int, value: int, verdict: int) -> None:
        program.extend([(operation, 0, 1, value), (_RETURN, 0, 0, verdict)])

    program.append((_LOAD, 0, 0, _AT_ARCH))
    unless(arch, unknown)
    program.append((_LOAD, 0, 0, _AT_NUMBER))
    when(_JUMP_IF_AT_LEAST, 0x40000000, unknown)  # the x32 calls, by which one could get around the rest
    for number in forbidden:
        when(_JUMP_IF_EQUAL, number, missing)
    unless(socket_call, _ALLOW)
    program.append((_LOAD, 0, 0, _AT_FIRST_ARGUMENT))
    for family in families:
        when(_JUMP_IF_EQUAL, int(family), _ALLOW)
    program.append((_RETURN, 0, 0, refused))
    code = b"".join(struct.pack("=HBBI", *line) for line in program)
    buffer = ctypes.create_string_buffer(code, len(code))
    head = struct.pack("@HP", len(program), ctypes.addressof(buffer))
    if _libc().prctl(22, 2, head, 0, 0) != 0 and not network:
        raise NetworkNotClosedError(f"the kernel takes no filter: {os.strerror(ctypes.get_errno())}")


# -- the rest

_METADATA_NAMES = frozenset({"metadata", "metadata.google.internal", "instance-data", "fd00:ec2::254"})


def refuse_metadata_addresses() -> None:
    """Have Python's sockets refuse the addresses at which clouds hand out the machine's credentials.

    This keeps a node from being talked into it (a webhook's URL that it fetches); code that makes system calls of its
    own is not held by it. `network: false` is.
    """

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if event in ("socket.connect", "socket.sendto", "socket.sendmsg"):
            address = arguments[1]
            if isinstance(address, tuple) and address and _is_metadata(address[0]):
                raise PermissionError(
                    errno.EACCES,
                    f"nodes may not connect to {address[0]}: clouds hand out the machine's credentials there "
                    "(setting metadata_addresses)",
                )

    sys.addaudithook(hook)


def _is_metadata(host: object) -> bool:
    if not isinstance(host, str):
        return False
    host = host.lower().rstrip(".")
    if host in _METADATA_NAMES:
        return True
    with contextlib.suppress(OSError):  # all spellings: 2852039166, 0xa9fea9fe
        return socket.inet_aton(host.removeprefix("::ffff:"))[:2] == b"\xa9\xfe"
    return host.startswith("fe80:")


def _drop_capabilities() -> None:
    """What root may do besides owning its files; a host that runs as root has workers that may not."""
    header, nothing = struct.pack("=Ii", 0x20080522, 0), bytes(24)
    with contextlib.suppress(AttributeError):
        _libc().capset(header, nothing)


def confine(reach: Reach) -> None:
    """Hold this process, and all that it starts, to `reach`, for good. `no_new_privs` is set already.

    Where the kernel has no Landlock the files stay open (`tailrace.runner.containment` says so).

    Raises:
        NetworkNotClosedError: it was to have no network, and has.
    """
    if sys.platform != "linux":
        if not reach.network:
            raise NetworkNotClosedError(f"{sys.platform} cannot take it away")
        return
    shared_memory = _own_shared_memory()
    _drop_capabilities()
    _close_files(reach, shared_memory=shared_memory)
    _close_sockets(reach.network)
    if not reach.metadata_addresses:
        refuse_metadata_addresses()
