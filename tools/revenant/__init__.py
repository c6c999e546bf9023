"""The host side of Revenant: images, their format, QEMU, and the command `revenant`."""

__version__ = "0.1.0"
