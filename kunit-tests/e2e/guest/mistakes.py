# SPDX-License-Identifier: GPL-2.0
"""What a program can get wrong with any device that has ioctls.

`results` has, for each mistake, the name of the errno that it got, "ok", or what
it got instead.
"""

import ctypes
import errno

libc = ctypes.CDLL(None, use_errno=True)
results = {}


def attempt(name, function, *arguments):
    try:
        value = function(*arguments)
        results[name] = "ok" if value in (None, 0) else repr(value)
    except OSError as error:
        results[name] = errno.errorcode[error.errno]


def ioctl(fd, command, argument):
    """ioctl() with any pointer."""
    if libc.ioctl(fd, ctypes.c_ulong(command), ctypes.c_void_p(argument)) < 0:
        raise OSError(ctypes.get_errno(), "ioctl")


def resized(command, size):
    """The command's number with another size of its argument."""
    return command & ~(0x3FFF << 16) | size << 16


def each_command(fd, commands):
    """Every command with other sizes and bad pointers. {name: (command, argument)}"""
    for name, (command, record) in commands.items():
        size = ctypes.sizeof(record)
        room = ctypes.create_string_buffer(size + 64)
        for what, other, argument in (
            ("short", resized(command, size - 8), ctypes.addressof(room)),
            ("long", resized(command, size + 8), ctypes.addressof(room)),
            ("empty", resized(command, 0), ctypes.addressof(room)),
            # The same number and size the other way round.
            ("direction", command ^ 1 << 30, ctypes.addressof(room)),
            ("null", command, 0),
            ("kernel address", command, 0xFFFF888000000000),
            ("unmapped", command, 0x1000),
        ):
            attempt(f"{name} {what}", ioctl, fd, other, argument)


def unknown_commands(fd, magic, after):
    """Commands that there are not: `after` is the last number that there is."""
    room = ctypes.create_string_buffer(4096)
    for what, command in (
        ("next number", 3 << 30 | 64 << 16 | magic << 8 | after + 1),
        ("number 255", 3 << 30 | 64 << 16 | magic << 8 | 255),
        ("other magic", 2 << 30 | 32 << 16 | (magic ^ 3) << 8),
        ("zero", 0),
        ("all ones", 0xFFFFFFFF),
    ):
        attempt(f"unknown {what}", ioctl, fd, command, ctypes.addressof(room))


def raw_read(fd, address, size):
    """read() to any pointer."""
    done = libc.read(fd, ctypes.c_void_p(address), ctypes.c_size_t(size))
    if done < 0:
        raise OSError(ctypes.get_errno(), "read")
    return done
