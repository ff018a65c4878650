"""Files as read-only memory, without a file descriptor each.

Python's own `mmap` keeps a duplicate of the descriptor before release 3.13, and thousands of blocks are mapped at once:
more than a process may usually have files open.
"""

import ctypes
import mmap
import os
from typing import Final

import numpy as np

_LIBC: Final = ctypes.CDLL(None, use_errno=True)
_MMAP: Final = _LIBC.mmap
_MMAP.restype = ctypes.c_void_p
_MMAP.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long)
_MUNMAP: Final = _LIBC.munmap
_MUNMAP.argtypes = (ctypes.c_void_p, ctypes.c_size_t)
_MADVISE: Final = _LIBC.madvise
_MADVISE.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
_FAILED: Final = ctypes.c_void_p(-1).value


class FileMapping:
    """A file mapped for reading; it stays readable when the file is replaced or deleted.

    The map lasts as long as this object or a view of it. A file that is cut while it is mapped ends the process when
    what is gone is read: files that are mapped must only ever be replaced.
    """

    __slots__ = ("__array_interface__", "_address", "_length")

    def __init__(self, descriptor: int, length: int) -> None:
        """Maps a file; the descriptor may be closed afterwards.

        Args:
            descriptor: Of the file, open for reading.
            length: Bytes to map from its beginning, > 0; the file is at least as long.

        Raises:
            OSError: The system refuses.
        """
        self._address, self._length = None, length
        address = _MMAP(None, length, mmap.PROT_READ, mmap.MAP_SHARED, descriptor, 0)
        if address == _FAILED:
            error = ctypes.get_errno()
            raise OSError(error, os.strerror(error))
        self._address = address
        # numpy makes an array of this, and keeps this object as long as there is a view of the array.
        self.__array_interface__ = {"version": 3, "typestr": "|u1", "shape": (length,), "data": (address, True)}

    def view(self) -> memoryview:
        """All bytes, read-only; keeps the map."""
        return np.asarray(self).data

    def give_back(self) -> None:
        """Lets the system have the memory; what is read afterwards comes from the file again. Any thread may read."""
        _MADVISE(self._address, self._length, mmap.MADV_DONTNEED)

    def __del__(self) -> None:
        if self._address is not None:
            _MUNMAP(self._address, self._length)
