"""NumPy arrays inside pickles, put together from their bytes: NumPy itself is not called by the pickle.

A pickled array is a call of NumPy for an empty array, and then a state of shape, kind of number and bytes. Both are only recorded here, and
the array is a view of the bytes after shape and length were compared. Arrays of Python objects are refused.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from jaxgan.weights.pickles import MAX_OPERATIONS, Global, Refused, keyed

DTYPES = frozenset("b1 i1 i2 i4 i8 u1 u2 u4 u8 f2 f4 f8".split())
"""Kinds of numbers that are read."""


class Numbers:
    """An array or scalar of the pickle; `value` is None until its state came. Read-only, of this machine's byte order."""

    __slots__ = ("value",)

    def __init__(self) -> None:
        self.value: np.ndarray | None = None


class _Dtype:
    __slots__ = ("code", "order")

    def __init__(self, code: str) -> None:
        self.code, self.order = code, ""


class NumpyPickles:
    """What a pickle of arrays and dicts may call, for ``pickles.unpickle``; one object for one file.

    Args:
      size: bytes of the file; what is made from text by ``_codecs.encode`` takes no more than that.
    """

    def __init__(self, size: int) -> None:
        self.text_left = size
        self.pairs_left = MAX_OPERATIONS

    def calls(self) -> dict[str, Callable[..., Any] | None]:
        modules = ("numpy.core.multiarray", "numpy._core.multiarray")
        named: dict[str, Callable[..., Any] | None] = {"numpy.ndarray": None, "numpy.dtype": _dtype, "_codecs.encode": self._encode}
        named |= {f"{module}._reconstruct": _reconstruct for module in modules}
        named |= {f"{module}.scalar": self._scalar for module in modules}
        return named | {"collections.OrderedDict": self._dict, "dnnlib.util.EasyDict": self._dict}

    def build(self, value: Any, state: Any) -> Any:
        """`BUILD` of an array or a dtype, in place, since the pickle's memo may hold the object already."""
        if isinstance(value, _Dtype):
            _set_order(value, state)
        elif isinstance(value, Numbers):
            self._set_array(value, state)
        else:
            raise Refused(f"a state for {type(value).__name__}")
        return value

    def _set_array(self, array: Numbers, state: Any) -> None:
        if array.value is not None:
            raise ValueError("the pickle is damaged: an array with two states")
        if type(state) is not tuple or len(state) != 5 or state[0] != 1:
            raise ValueError("the pickle is damaged: the state of an array is not (1, shape, dtype, order, bytes)")
        _, shape, dtype, fortran, data = state
        if type(fortran) not in (bool, int) or type(shape) is not tuple:
            raise ValueError("the pickle is damaged: an array without a shape or an order")
        array.value = self._numbers(shape, dtype, data, "F" if fortran else "C")

    def _scalar(self, dtype: Any, data: Any) -> Numbers:
        scalar = Numbers()
        scalar.value = self._numbers((), dtype, data, "C")
        return scalar

    def _numbers(self, shape: tuple[Any, ...], dtype: Any, data: Any, order: Any) -> np.ndarray:
        if not isinstance(dtype, _Dtype):
            raise ValueError(f"the pickle is damaged: {type(dtype).__name__} where the kind of numbers should be")
        if len(shape) > 32 or not all(type(side) is int and 0 < side < 2**48 for side in shape):
            raise ValueError(f"an array of shape {'x'.join(str(side)[:20] for side in shape[:32] if type(side) is int)}, which none has")
        # Files of Python 2 hold bytes as text.
        data = self._encode(data, "latin1") if isinstance(data, str) else data
        if type(data) not in (bytes, bytearray):
            raise ValueError(f"the pickle is damaged: {type(data).__name__} where the bytes of an array should be")
        kind = np.dtype(f"{dtype.order or '<'}{dtype.code}")
        expected = math.prod(shape) * kind.itemsize
        if len(data) != expected:
            raise ValueError(f"an array of shape {shape} and kind {dtype.code} has {len(data):,} bytes, not {expected:,}")
        if dtype.code == "b1" and data and max(data) > 1:
            raise ValueError("an array of truth values has bytes that are neither 0 nor 1")
        array = np.frombuffer(bytes(data), kind).reshape(shape, order=order)
        array = array.astype(kind.newbyteorder("="), copy=False)
        array.flags.writeable = False
        return array

    def _encode(self, value: Any, codec: Any = "latin1") -> bytes:
        """Bytes as protocols 0 to 2 have them."""
        if type(value) is not str or codec not in ("latin1", "latin-1"):
            raise Refused(f"_codecs.encode of {type(value).__name__} to {str(codec)[:20] if type(codec) is str else type(codec).__name__}")
        self.text_left -= len(value)
        if self.text_left < 0:
            raise ValueError("its texts are turned into more bytes than the file has")
        return value.encode("latin1")

    def _dict(self, pairs: Any = ()) -> dict[Any, Any]:
        if type(pairs) not in (tuple, list, dict):
            raise ValueError(f"the pickle is damaged: a dict is made of {type(pairs).__name__}")
        self.pairs_left -= len(pairs)
        if self.pairs_left < 0:
            raise ValueError(f"its dicts have more than {MAX_OPERATIONS:,} keys")
        return keyed(pairs.items() if type(pairs) is dict else pairs)


def _dtype(code: Any, *rest: Any) -> _Dtype:
    if type(code) is not str or code not in DTYPES:
        raise Refused(f"numpy.dtype({code!r:.40})" if type(code) is str else f"numpy.dtype of {type(code).__name__}")
    return _Dtype(code)


def _set_order(dtype: _Dtype, state: Any) -> None:
    """(3, byte order, None, None, None, -1, -1, 0); parts and names of fields would stand where None is."""
    if dtype.order or type(state) is not tuple or not 2 <= len(state) <= 9 or any(type(part) in (tuple, dict) for part in state):
        raise ValueError("the pickle is damaged: the state of a dtype is not that of plain numbers")
    if type(state[1]) is not str or state[1] not in ("<", ">", "|", "="):
        raise ValueError("the pickle is damaged: a dtype without a byte order")
    dtype.order = "<" if state[1] in "|=" else state[1]


def _reconstruct(kind: Any, shape: Any, code: Any) -> Numbers:
    if not isinstance(kind, Global):
        raise ValueError("the pickle is damaged: an array of an unknown class")
    if kind.name != "numpy.ndarray":
        raise Refused(f"an array of the class {kind.name}")
    return Numbers()
