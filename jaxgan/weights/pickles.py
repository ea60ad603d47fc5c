"""A reader of pickles that cannot run anything: it builds plain values, and calls only what its caller lists.

A pickle is a program for a stack machine. The machine here knows numbers, text, tuples, lists, dicts and sets; a global name is looked up
in the caller's list and nowhere else, so that no module is imported and no attribute is touched. What is not listed is refused by its name.
"""

from __future__ import annotations

import pickletools
import reprlib
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

MAX_OPERATIONS = 5_000_000
"""A checkpoint of 20,000 arrays takes about 1,000,000."""


class Global(NamedTuple):
    """A name which the pickle asks for, and which its reader knows."""

    name: str


class Refused(ValueError):
    """The pickle asks for something that its reader does not know."""

    def __init__(self, name: str) -> None:
        super().__init__(f"it asks for {name}, which is refused: it is not needed for arrays and could run any code")
        self.name = name


class _Mark:
    """The place on the stack where the next tuple, list or dict begins."""


_MARK = _Mark()
_PUSH = ("INT BININT BININT1 BININT2 LONG LONG1 LONG4 FLOAT BINFLOAT STRING BINSTRING SHORT_BINSTRING BINBYTES SHORT_BINBYTES BINBYTES8 "
         "BYTEARRAY8 UNICODE BINUNICODE SHORT_BINUNICODE BINUNICODE8").split()  # fmt: skip
_CONSTANTS: dict[str, Callable[[], Any]] = {
    "NONE": lambda: None, "NEWTRUE": lambda: True, "NEWFALSE": lambda: False,
    "EMPTY_TUPLE": tuple, "EMPTY_LIST": list, "EMPTY_DICT": dict, "EMPTY_SET": set, "MARK": lambda: _MARK,
}  # fmt: skip


def unpickle(
    file: Any,
    calls: Mapping[str, Callable[..., Any] | None],
    persistent: Callable[[Any], Any] | None = None,
    build: Callable[[Any, Any], Any] | None = None,
) -> Any:
    """The value of one pickle.

    Args:
      file: binary file-like at the pickle's start; left behind its end.
      calls: what the pickle may call, by 'module.name'; None: a name that may only be mentioned (it arrives as a ``Global``).
      persistent: value of a persistent identifier; None: there may be none.
      build: what `BUILD` makes of (object, state); None: there may be none.

    Raises:
      Refused: a name that is not in `calls`, before anything is done with it.
      ValueError: damaged, or more than ``MAX_OPERATIONS``.
    """
    try:
        return _Machine(calls, persistent, build).run(file)
    except (IndexError, KeyError, TypeError, AttributeError, AssertionError, OverflowError, UnicodeError, RecursionError, Warning) as error:
        # A warning, of damaged escapes in text, arrives here only where warnings are errors.
        raise ValueError(f"the pickle is damaged: {type(error).__name__} {error}") from error


def shown(value: Any) -> str:
    """The beginning of a value as text, for messages. Values may hold each other so often that their whole text would fill the memory."""
    short = reprlib.Repr()
    short.maxlevel = 2
    return short.repr(value)[:120]


class _Machine:
    def __init__(self, calls: Any, persistent: Any, build: Any) -> None:
        self.calls, self.persistent, self.build = calls, persistent, build
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}
        self.given = 0

    def run(self, file: Any) -> Any:
        for count, (opcode, argument, _) in enumerate(pickletools.genops(file)):
            if count > MAX_OPERATIONS:
                raise ValueError(f"the pickle has more than {MAX_OPERATIONS:,} operations")
            if opcode.name == "STOP":
                break
            self.step(opcode.name, argument)
        if len(self.stack) != 1 or self.stack[0] is _MARK:
            raise ValueError(f"the pickle is damaged: {len(self.stack)} values are left at its end")
        return self.stack[0]

    def step(self, name: str, argument: Any) -> None:
        stack = self.stack
        if name in _PUSH:
            stack.append(argument)
        elif name in _CONSTANTS:
            stack.append(_CONSTANTS[name]())
        elif name in ("PROTO", "FRAME"):
            pass
        elif name in ("BINPUT", "LONG_BINPUT", "PUT", "MEMOIZE"):
            self.memo[len(self.memo) if name == "MEMOIZE" else argument] = stack[-1]
        elif name in ("BINGET", "LONG_BINGET", "GET"):
            stack.append(self.memo[argument])
        elif name in ("TUPLE1", "TUPLE2", "TUPLE3"):
            stack.append(tuple(reversed([self.pop() for _ in range(int(name[-1]))])))
        elif name in ("TUPLE", "LIST", "DICT", "FROZENSET"):
            items = self.since_mark()
            stack.append({"TUPLE": tuple, "LIST": list, "DICT": _pairs, "FROZENSET": _members}[name](items))
        elif name in ("APPEND", "APPENDS"):
            items = [self.pop()] if name == "APPEND" else self.since_mark()
            self.top(list).extend(items)
        elif name in ("SETITEM", "SETITEMS"):
            items = [self.pop(), self.pop()][::-1] if name == "SETITEM" else self.since_mark()
            self.top(dict).update(_pairs(items))
        elif name == "ADDITEMS":
            items = self.since_mark()
            self.top(set).update(_members(items))
        elif name == "POP":
            stack.pop()
        elif name == "POP_MARK":
            self.since_mark()
        elif name == "DUP":
            stack.append(stack[-1])
        else:
            self.outside(name, argument)

    def outside(self, name: str, argument: Any) -> None:
        """The operations which, in Python's own machine, reach modules and objects."""
        if name == "GLOBAL":
            self.stack.append(self.known(argument.replace(" ", ".", 1)))
        elif name == "STACK_GLOBAL":
            attribute, module = self.pop(), self.pop()
            if not isinstance(module, str) or not isinstance(attribute, str):
                raise ValueError("the pickle is damaged: a name that is not text")
            self.stack.append(self.known(f"{module}.{attribute}"))
        elif name in ("REDUCE", "NEWOBJ"):
            arguments, function = self.pop(), self.pop()
            self.stack.append(self.call(function, arguments))
        elif name == "NEWOBJ_EX":
            keywords, arguments, function = self.pop(), self.pop(), self.pop()
            if keywords:
                raise ValueError(f"the pickle is damaged: {shown(function)} is called with keywords {shown(keywords)}")
            self.stack.append(self.call(function, arguments))
        elif name == "INST":
            function = self.known(argument.replace(" ", ".", 1))
            self.stack.append(self.call(function, tuple(self.since_mark())))
        elif name == "OBJ":
            function, *arguments = self.since_mark()
            self.stack.append(self.call(function, tuple(arguments)))
        elif name in ("EXT1", "EXT2", "EXT4"):
            raise Refused(f"extension {argument}")
        elif name in ("PERSID", "BINPERSID"):
            identifier = argument if name == "PERSID" else self.pop()
            if self.persistent is None:
                raise Refused(f"persistent object {shown(identifier)}")
            self.stack.append(self.persistent(identifier))
        elif name == "BUILD":
            state, value = self.pop(), self.pop()
            if self.build is None:
                raise Refused(f"a state for {type(value).__name__}")
            self.stack.append(self.build(value, state))
        else:
            raise Refused(f"the operation {name}")

    def known(self, name: str) -> Global:
        if name not in self.calls:
            raise Refused(name)
        return Global(name)

    def call(self, function: Any, arguments: Any) -> Any:
        if not isinstance(function, Global):
            raise Refused(f"a call of {shown(function)}")
        if not isinstance(arguments, tuple):
            raise ValueError(f"the pickle is damaged: {function.name} is called with {type(arguments).__name__}, not a tuple")
        target = self.calls[function.name]
        if target is None:
            raise Refused(f"a call of {function.name}")
        # A call may copy what it is given, and one long list can be given again and again.
        self.given += sum(len(argument) for argument in arguments if hasattr(argument, "__len__"))
        if self.given > MAX_OPERATIONS:
            raise ValueError(f"the pickle gives more than {MAX_OPERATIONS:,} values to {function.name} and others")
        return target(*arguments)

    def pop(self) -> Any:
        if self.stack[-1] is _MARK:
            raise ValueError("the pickle is damaged: a mark where a value should be")
        return self.stack.pop()

    def since_mark(self) -> list[Any]:
        items = []
        while (item := self.stack.pop()) is not _MARK:
            items.append(item)
        return items[::-1]

    def top(self, kind: type) -> Any:
        if type(self.stack[-1]) is not kind:
            raise ValueError(f"the pickle is damaged: {type(self.stack[-1]).__name__} where {kind.__name__} should be")
        return self.stack[-1]


def _pairs(items: list[Any]) -> dict[Any, Any]:
    if len(items) % 2:
        raise ValueError("the pickle is damaged: a key without a value")
    return keyed(zip(items[::2], items[1::2], strict=True))


def _members(items: list[Any]) -> frozenset[Any]:
    return frozenset(keyed((item, None) for item in items))


def keyed(pairs: Iterable[tuple[Any, Any]]) -> dict[Any, Any]:
    """A dict whose keys are text, bytes or numbers: Python hashes nested tuples by recursion without a limit."""
    made = {}
    for key, value in pairs:
        if not isinstance(key, str | bytes | int | float | None):
            raise ValueError(f"the pickle is damaged: a {type(key).__name__} as a key")
        made[key] = value
    return made
