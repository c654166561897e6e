# SPDX-License-Identifier: GPL-2.0
"""What can go wrong with a node, each with a message that says what to do."""


class NodeError(Exception):
    """Base of everything that this package raises itself."""


class SetupError(NodeError):
    """Something that the machine needs is missing: a program, kernel, image."""


class BootError(NodeError):
    """The node did not come up; the message ends with its console."""


class NodeGone(NodeError):
    """The virtual machine ended, or was reset under a running command."""


class CommandError(NodeError):
    """A command in the node failed, or could not be started."""

    def __init__(self, message, result=None):
        super().__init__(message)
        self.result = result


class TimedOut(NodeError):
    """What was waited for did not happen in time."""


class KernelBug(AssertionError):
    """The kernel of a node reported a bug of its own. No second try undoes that."""
