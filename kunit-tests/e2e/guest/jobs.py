# SPDX-License-Identifier: GPL-2.0
"""jobs.py GROUP: two jobs of different users, both in the device's group; what one can reach of the
other's heartbeat page. Prints a line of JSON: each attempt, and its error or "ok".
"""

import ctypes
import errno
import grp
import json
import mmap
import os
import socket
import sys

import stall

SECRET = 0x5EC2E75EC2E75EC2
VICTIM, OTHER = 1001, 1002
PR_SET_DUMPABLE = 4
PIDFD_OPEN, PIDFD_GETFD, VM_READV = 434, 438, 310

libc = ctypes.CDLL(None, use_errno=True)
answers = {}


def attempt(name, what):
    try:
        answers[name] = what() or "ok"
    except OSError as error:
        answers[name] = errno.errorcode[error.errno]


def call(*arguments):
    result = libc.syscall(*(ctypes.c_long(one) if isinstance(one, int) else one for one in arguments))
    if result < 0:
        raise OSError(ctypes.get_errno(), "syscall")
    return result


def become(user, group):
    os.setgroups([group])
    os.setresgid(user, user, user)
    os.setresuid(user, user, user)
    # As a program that its user has started: /proc is its user's.
    libc.prctl(PR_SET_DUMPABLE, 1, 0, 0, 0)


def secret_in(data):
    return "SECRET" if SECRET.to_bytes(8, "little") in bytes(data) else None


def fresh(number):
    """A page of one's own holds nothing of anybody's."""
    device = stall.Device()
    device.register(number)
    page = device.map()
    content = bytes(page.buffer)
    trainer, rest = content[:64], content[ctypes.sizeof(stall.Page) :]
    found = secret_in(content) or (None if not any(trainer + rest) else "not zero")
    page.step = SECRET
    page.buffer[2048:2056] = SECRET.to_bytes(8, "little")
    return device, page, found


def map_again(fd, offset=0):
    return secret_in(mmap.mmap(fd, stall.PAGE_SIZE, offset=offset)[:])


def read_memory(pid, address):
    class Vector(ctypes.Structure):
        _fields_ = [("base", ctypes.c_void_p), ("length", ctypes.c_size_t)]

    buffer = ctypes.create_string_buffer(64)
    local = Vector(ctypes.addressof(buffer), 64)
    call(VM_READV, pid, ctypes.byref(local), 1, ctypes.byref(Vector(address, 64)), 1, 0)
    return secret_in(buffer.raw)


def victim(group, link):
    """Registers rank 0, tells where, and lends its file."""
    become(VICTIM, group)
    device, page, _ = fresh(0)
    address = next(int(line.split("-")[0], 16) for line in open("/proc/self/maps") if stall.DEVICE in line)
    child = os.fork()
    if not child:
        inherited = [line for line in open("/proc/self/maps") if stall.DEVICE in line]
        attempt("child maps the inherited file", lambda: map_again(device.fd))
        answers["child's mappings"] = len(inherited)
        link.send(json.dumps([os.getppid(), address, device.fd, answers]).encode())
        os._exit(0)
    os.waitpid(child, 0)
    socket.send_fds(link, [b"file"], [device.fd])
    link.recv(1)
    # Mapped all the time.
    page.step = 0


def neighbour(link, same_user):
    """Everything that another process may try."""
    pid, address, fd, before = json.loads(link.recv(4096))
    answers.update(before)
    _, [lent], _, _ = socket.recv_fds(link, 16, 1)
    who = "same user: " if same_user else ""
    device = stall.Device()
    attempt(f"{who}map without a rank", lambda: map_again(device.fd))
    attempt(f"{who}leave without a rank", device.leave)
    attempt(f"{who}register the same rank", lambda: device.register(0))
    for page in (1, 2, 1 << 20):
        attempt(f"{who}map page {page}", lambda page=page: map_again(device.fd, page * stall.PAGE_SIZE))
    attempt(f"{who}map the lent file", lambda: map_again(lent))
    other = lambda: os.open(f"/proc/{pid}/fd/{fd}", os.O_RDWR)  # noqa: E731
    if same_user:
        # Opens the device, not the file.
        attempt(f"{who}map through /proc", lambda: map_again(other()))
    else:
        attempt("open through /proc", other)
        attempt("read its memory", lambda: read_memory(pid, address))
        attempt("open its memory", lambda: os.open(f"/proc/{pid}/mem", os.O_RDONLY))
        attempt("take its file", lambda: call(PIDFD_GETFD, call(PIDFD_OPEN, pid, 0), fd, 0))
        found = [fresh(number)[2] for number in range(1, 20)]
        answers["pages of one's own"] = next((what for what in found if what), "ok")


def main():
    group = grp.getgrnam(sys.argv[1]).gr_gid
    for same_user in (False, True):
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        pid = os.fork()
        if not pid:
            ours.close()
            victim(group, theirs)
            os._exit(0)
        theirs.close()
        result, write = os.pipe()
        other = os.fork()
        if not other:
            become(VICTIM if same_user else OTHER, group)
            neighbour(ours, same_user)
            os.write(write, json.dumps(answers).encode())
            os._exit(0)
        os.close(write)
        os.waitpid(other, 0)
        answers.update(json.loads(os.read(result, 65536)))
        ours.send(b"x")
        os.waitpid(pid, 0)
    # What they leave behind goes to nobody.
    left = [fresh(number)[2] for number in range(50)]
    answers["pages after them"] = next((what for what in left if what), "ok")
    print(json.dumps(answers))


main()
