"""What crosses between devices in a compiled program: its collectives by kind, bytes and origin, read from the text of the HLO."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable
from typing import NamedTuple

KINDS = ("all-reduce", "all-gather", "reduce-scatter", "collective-permute", "all-to-all", "collective-broadcast", "ragged-all-to-all")

_BITS = {"pred": 8, "s4": 4, "u4": 4, "bf16": 16, "c64": 64, "c128": 128, "token": 0}
_SHAPE = re.compile(r"\b([a-z]+[0-9]*(?:e[0-9]m[0-9]\w*)?)\[([0-9,<= ]*)\]")
_INSTRUCTION = re.compile(r"^\s*(?:ROOT )?%?(?P<name>[\w.\-]+) = (?P<rest>.*)$")
_OPERATION = re.compile(r"(?P<kind>" + "|".join(KINDS) + r")(?P<start>-start)?\(")


class Collective(NamedTuple):
    """One array that crosses between devices, once for each time the instruction runs in a step."""

    kind: str
    """One of ``KINDS``."""
    bytes: int
    """Size of the array on one device (of the gathered result, of the operand that is scattered), times ``times``."""
    shape: tuple[int, ...]
    dtype: str
    """HLO name: 'f32', 'bf16', ..."""
    group: int
    """Devices that take part together; 0 where the text does not say."""
    times: int
    """Runs in one step: the trip counts of the loops around it."""
    origin: str
    """``op_name`` of the operation that it came from: scopes and primitive."""


def read(hlo: str) -> list[Collective]:
    """The collectives of a compiled module's text (``compiled.as_text()``).

    An asynchronous pair is counted at its ``-start``. A collective that carries several arrays gives one entry for each. Where the trip
    count of a loop is not known, its body counts once.
    """
    lines, computation = [], ""
    loops: list[tuple[str, str, int]] = []
    origins: dict[tuple[str, int], str] = {}
    for line in hlo.splitlines():
        header = re.match(r"(?:ENTRY )?%?([\w.\-]+) .*\{\s*$", line)
        if header:
            computation = header.group(1)
            continue
        found = _INSTRUCTION.match(line)
        if not found:
            continue
        rest = found["rest"]
        body = re.search(r"\bwhile\(.*\bbody=%?([\w.\-]+)", rest)
        if body:
            count = re.search(r'"known_trip_count":\{"n":"(\d+)"', rest)
            loops.append((computation, body.group(1), int(count.group(1)) if count else 1))
        for called in re.findall(r"\b(?:calls|to_apply|true_computation|false_computation)=%?([\w.\-]+)", rest):
            loops.append((computation, called, 1))
        for branches in re.findall(r"\bbranch_computations=\{([^}]*)\}", rest):
            loops.extend((computation, branch.strip().lstrip("%"), 1) for branch in branches.split(","))
        element = re.search(r"get-tuple-element\(%?([\w.\-]+)\), index=(\d+)", rest)
        if element and _origin(rest):
            origins[element.group(1), int(element.group(2))] = _origin(rest)
        lines.append((computation, found["name"], rest))
    times = _runs(loops)
    collectives = []
    for computation, name, rest in lines:
        # The operation follows the result's shape; a mention inside an operand, a name or the metadata does not count.
        shape, operation = _split_result(rest)
        found = _OPERATION.match(operation)
        if not found:
            continue
        kind, group, runs = found["kind"], _group(rest), times.get(computation, 1)
        for index, (dtype, dimensions) in enumerate(_result_arrays(kind, shape, found["start"] is not None)):
            size = math.prod(dimensions) * _bits(dtype) // 8
            if kind == "reduce-scatter":
                size *= max(group, 1)
            origin = origins.get((name, index)) or _origin(rest)
            collectives.append(Collective(kind, size * runs, dimensions, dtype, group, runs, origin))
    return collectives


def totals(collectives: Iterable[Collective]) -> dict[str, tuple[int, int]]:
    """(arrays per step, bytes per step and device) by kind, for the kinds that occur."""
    count: Counter[str] = Counter()
    size: Counter[str] = Counter()
    for one in collectives:
        count[one.kind] += one.times
        size[one.kind] += one.bytes
    return {kind: (count[kind], size[kind]) for kind in KINDS if count[kind]}


def purpose(one: Collective, parameters: Iterable[tuple[int, ...]]) -> str:
    """What a collective of a training step is for, from its kind, shape and origin.

    Args:
      one: the collective.
      parameters: shapes of the trainable arrays.

    Returns:
      'gradients': a sum in the shape of a trainable array of two axes or more, or in that of the kernel's gradient of a 3x3 convolution
      joined with a doubling or halving of the image (4 taps for each of four phases, or 16 taps). 'metrics': a sum of one number.
      'statistics': a sum of a vector or of up to four side by side: the moments of normalisation layers forward and backward, and with
      them the gradients of biases and gains, which look the same. 'samples': everything else; it moves activations.
    """
    if one.kind not in ("all-reduce", "reduce-scatter"):
        return "samples"
    shape, known = _squeeze(one.shape), {_squeeze(shape) for shape in parameters}
    if not shape:
        return "metrics"
    # The compiler may keep an array's axes in another order.
    if len(shape) > 1 and sorted(shape) in [sorted(parameter) for parameter in known]:
        return "gradients"
    if "transpose(" in one.origin and one.origin.endswith("conv_general_dilated"):
        nine = 9 * math.prod(shape)
        if any(len(kernel) == 4 and kernel[:2] == (3, 3) and nine in (4 * math.prod(kernel), 16 * math.prod(kernel)) for kernel in known):
            return "gradients"
    return "statistics" if math.prod(shape) <= 4 * max(shape) else "samples"


def _squeeze(shape: Iterable[int]) -> tuple[int, ...]:
    return tuple(size for size in shape if size != 1)


def _runs(loops: list[tuple[str, str, int]]) -> dict[str, int]:
    """Runs of each computation in one step, from (caller, callee, trip count)."""
    callers: dict[str, list[tuple[str, int]]] = {}
    for caller, callee, count in loops:
        callers.setdefault(callee, []).append((caller, count))
    known: dict[str, int] = {}

    def runs(computation: str) -> int:
        if computation not in known:
            known[computation] = 1  # A computation is not its own caller.
            known[computation] = max((runs(caller) * count for caller, count in callers.get(computation, [])), default=1)
        return known[computation]

    for callee in callers:
        runs(callee)
    return known


def _split_result(rest: str) -> tuple[str, str]:
    """('(f32[2]{0}, f32[3]{0})', 'all-reduce(...') of the text behind the equals sign."""
    depth = 0
    for position, letter in enumerate(rest):
        depth += (letter in "({[") - (letter in ")}]")
        if letter == " " and depth == 0:
            return rest[:position], rest[position + 1 :]
    return rest, ""


def _elements(text: str) -> list[str]:
    """Top-level elements of '(a, (b, c), d)'; the text itself where it is no tuple."""
    if not text.startswith("("):
        return [text]
    elements, depth, begin = [], 0, 1
    for position, letter in enumerate(text):
        depth += (letter in "({[") - (letter in ")}]")
        if (letter == "," and depth == 1) or (letter == ")" and depth == 0):
            elements.append(text[begin:position].strip())
            begin = position + 1
    # Index comments of long tuples: '/*index=5*/f32[3]'.
    return [re.sub(r"/\*.*?\*/", "", element).strip() for element in elements if element]


def _result_arrays(kind: str, shape: str, asynchronous: bool) -> list[tuple[str, tuple[int, ...]]]:
    parts = _elements(shape)
    if asynchronous and kind != "all-reduce" and len(parts) > 1:
        # (operands, results, context ...): the results.
        parts = _elements(parts[1])
    arrays = []
    for part in parts:
        found = _SHAPE.search(part)
        if found:
            sizes = re.findall(r"\d+", found.group(2))
            arrays.append((found.group(1), tuple(int(size) for size in sizes)))
    return arrays


def _bits(dtype: str) -> int:
    if dtype in _BITS:
        return _BITS[dtype]
    found = re.match(r"(?:s|u|f)(\d+)", dtype)
    return int(found.group(1)) if found else 32


def _group(rest: str) -> int:
    """Devices in a replica group, in any of the three notations of HLO; 0 where there is none."""
    found = re.search(r"replica_groups=\{\{([\d,]*)\}", rest)
    if found:
        return len(found.group(1).split(","))
    found = re.search(r"replica_groups=\[(\d+),(\d+)\]<=", rest)
    if found:
        return int(found.group(2))
    found = re.search(r"replica_groups=mesh\[([^\]]*)\]\s*\{([^}]*)\}", rest)
    if found:
        sizes = dict(re.findall(r"'(\w+)'=(\d+)", found.group(1)))
        return math.prod(int(size or sizes[name]) for name, size in re.findall(r"'(\w+)'(?::\(\d+\)(\d+))?", found.group(2)))
    pairs = re.search(r"source_target_pairs=\{(\{.*?\})\}", rest)
    return len(re.findall(r"\{", pairs.group(1))) if pairs else 0


def _origin(rest: str) -> str:
    found = re.search(r'op_name="([^"]*)"', rest)
    return found.group(1) if found else ""
