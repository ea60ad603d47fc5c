"""Sums that stream, merge, shard and resume: moments of rows, and the rows themselves, as plain float64 arrays on the host.

Sums are dictionaries of arrays and nothing else; every function returns new ones. They are saved with the *protocol* that made them
(features, resize mode, checksum of the weights ...), and sums of different protocols refuse to merge.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

Sums = dict[str, np.ndarray]


class Moments:
    """Count, mean and scatter matrix of rows; merged pairwise (Chan, Golub and LeVeque 1983), so that no large squares cancel."""

    @staticmethod
    def zero(columns: int) -> Sums:
        """``n`` int64 scalar, ``mean`` ``[d]`` and ``scatter`` ``[d, d]`` (the sum of (x - mean)(x - mean)') of no rows."""
        if columns < 1:
            raise ValueError(f"rows of {columns} columns have no moments; at least 1 is needed")
        return {"n": np.asarray(0, np.int64), "mean": np.zeros(columns), "scatter": np.zeros((columns, columns))}

    @staticmethod
    def add(sums: Sums, rows: np.ndarray) -> Sums:
        """The sums with rows ``[n, d]`` added. ValueError: another number of columns, or rows that are not finite."""
        rows = _rows(rows, sums["mean"].size, np.float64)
        if not len(rows):
            return sums
        mean = rows.mean(axis=0)
        centred = rows - mean
        return Moments.merge(sums, {"n": np.asarray(len(rows), np.int64), "mean": mean, "scatter": centred.T @ centred})

    @staticmethod
    def merge(a: Sums, b: Sums) -> Sums:
        """Sums of both sets of rows. ValueError: different numbers of columns."""
        if a["mean"].size != b["mean"].size:
            raise ValueError(f"moments of {a['mean'].size} and of {b['mean'].size} columns do not merge: they come from different features")
        n_a, n_b = int(a["n"]), int(b["n"])
        if not n_a or not n_b:
            return dict(a if n_a else b)
        n, difference = n_a + n_b, b["mean"] - a["mean"]
        scatter = np.outer(difference, difference * (n_a * n_b / n))
        scatter += a["scatter"]
        scatter += b["scatter"]
        return {"n": np.asarray(n, np.int64), "mean": a["mean"] + difference * (n_b / n), "scatter": scatter}

    @staticmethod
    def mean_covariance(sums: Sums) -> tuple[np.ndarray, np.ndarray]:
        """Mean ``[d]`` and covariance ``[d, d]`` with the divisor n - 1. ValueError: fewer than 2 rows."""
        n = int(sums["n"])
        if n < 2:
            raise ValueError(f"{n} row{'s' * (n != 1)} were added; a covariance needs at least 2")
        return sums["mean"], sums["scatter"] / (n - 1)


class Rows:
    """The rows themselves, each with its position in the source: any order and any sharding reads back the same, bit for bit.

    Kept as blocks ``index.K`` int64 ``[n]`` and ``rows.K`` ``[n, d]``; a block that has grown as large as the one before it is joined
    with it, so that adding n rows one by one copies each about log2(n) times and leaves about log2(n) blocks.
    """

    @staticmethod
    def zero(columns: int, dtype: Any = np.float32) -> Sums:
        """No rows of `columns` columns."""
        if columns < 1:
            raise ValueError(f"rows need at least 1 column, not {columns}")
        return {"index.0": np.zeros(0, np.int64), "rows.0": np.zeros((0, columns), dtype)}

    @staticmethod
    def add(sums: Sums, index: np.ndarray, rows: np.ndarray) -> Sums:
        """The sums with rows ``[n, d]`` of the positions `index` ``[n]`` added.

        Raises:
          ValueError: another number of columns, as many positions as rows are not given, a negative position, or rows that are not finite.
        """
        rows = _rows(rows, sums["rows.0"].shape[1], sums["rows.0"].dtype)
        index = np.asarray(index)
        if index.shape != (len(rows),) or index.dtype.kind not in "iu" or (index.size and index.min() < 0):
            raise ValueError(f"{len(rows)} rows need as many positions, integers from 0; got {index.dtype} of shape {index.shape}")
        return Rows._joined([*Rows._blocks(sums), (index.astype(np.int64), rows.copy())])

    @staticmethod
    def merge(a: Sums, b: Sums) -> Sums:
        """The rows of both. ValueError: different numbers of columns or dtypes."""
        shapes = [(s["rows.0"].shape[1], str(s["rows.0"].dtype)) for s in (a, b)]
        if shapes[0] != shapes[1]:
            raise ValueError(f"rows of {shapes[0][0]} columns ({shapes[0][1]}) and of {shapes[1][0]} ({shapes[1][1]}) do not merge")
        blocks = sorted([*Rows._blocks(a), *Rows._blocks(b)], key=lambda block: -len(block[0]))
        return Rows._joined(blocks)

    @staticmethod
    def read(sums: Sums) -> np.ndarray:
        """Rows ``[n, d]`` by ascending position.

        Equal rows at one position (a batch that was added again after a restart) count once.

        Raises:
          ValueError: different rows at one position: two sources were mixed.
        """
        return Rows._sorted(sums)[1]

    @staticmethod
    def positions(sums: Sums) -> np.ndarray:
        """The positions that are there, ascending, int64 ``[n]``: what a resumed pass may leave out. ValueError as in ``read``."""
        return Rows._sorted(sums)[0]

    @staticmethod
    def _sorted(sums: Sums) -> tuple[np.ndarray, np.ndarray]:
        blocks = Rows._blocks(sums)
        index, rows = np.concatenate([b[0] for b in blocks]), np.concatenate([b[1] for b in blocks])
        order = np.argsort(index, kind="stable")
        index, rows = index[order], rows[order]
        again = np.flatnonzero(index[1:] == index[:-1]) + 1
        if again.size:
            different = again[(rows[again] != rows[again - 1]).any(axis=1)]
            if different.size:
                raise ValueError(f"position {index[different[0]]} was added twice with different rows: two sources were mixed")
            index, rows = np.delete(index, again), np.delete(rows, again, axis=0)
        return index, rows

    @staticmethod
    def _blocks(sums: Sums) -> list[tuple[np.ndarray, np.ndarray]]:
        return [(sums[f"index.{k}"], sums[f"rows.{k}"]) for k in range(len(sums) // 2)]

    @staticmethod
    def _joined(blocks: list[tuple[np.ndarray, np.ndarray]]) -> Sums:
        stack: list[tuple[np.ndarray, np.ndarray]] = []
        for block in blocks:
            stack.append(block)
            while len(stack) > 1 and len(stack[-1][0]) >= len(stack[-2][0]):
                last = stack.pop()
                stack[-1] = (np.concatenate([stack[-1][0], last[0]]), np.concatenate([stack[-1][1], last[1]]))
        return {f"{part}.{k}": array for k, block in enumerate(stack) for part, array in zip(("index", "rows"), block, strict=True)}


class Saved(NamedTuple):
    """Sums with the protocol that made them."""

    sums: Sums
    protocol: dict[str, Any]
    """JSON values by field name. What may differ between shards of one pass (their counts, their files) has no place in it."""


def check_protocol(expected: Mapping[str, Any], found: Mapping[str, Any], where: Any = "the other sums") -> None:
    """ValueError naming the fields in which two protocols differ."""
    expected, found = json.loads(json.dumps(expected)), json.loads(json.dumps(found))  # as a file holds them: tuples are lists
    missing = object()
    fields = [field for field in {**expected, **found} if expected.get(field, missing) != found.get(field, missing)]
    if fields:
        said = [f"{f}: {_said(expected, f)} here, {_said(found, f)} there" for f in fields[:5]]
        more = f" and {len(fields) - 5} more" if len(fields) > 5 else ""
        raise ValueError(f"{where}: another protocol ({'; '.join(said)}{more}): compute both sides anew with the same settings")


def _said(protocol: Mapping[str, Any], field: str) -> str:
    return repr(protocol[field]) if field in protocol else "not stated"


def merge_saved(a: Saved, b: Saved) -> Saved:
    """Two saved sums as one. ValueError: different protocols (names the field), different kinds of sums or numbers of columns."""
    check_protocol(a.protocol, b.protocol)
    if ("scatter" in a.sums) != ("scatter" in b.sums):
        raise ValueError("moments and rows do not merge: save both in the same form")
    return Saved((Moments if "scatter" in a.sums else Rows).merge(a.sums, b.sums), a.protocol)


def save(path: str | Path, sums: Sums, protocol: Mapping[str, Any]) -> None:
    """Writes sums as a ``.safetensors`` file with the protocol as JSON in its metadata; the file is whole or absent.

    Raises:
      ValueError: another file ending, sums that are neither moments nor rows, or a protocol that is not JSON. OSError: cannot be written.
    """
    from safetensors.numpy import save as to_bytes

    from jaxgan.files import write_atomic

    if not str(path).endswith(".safetensors"):
        raise ValueError(f"{path}: statistics are saved as .safetensors; choose a name with that ending")
    _check_sums(sums, "these sums")
    try:
        text = json.dumps(dict(protocol), sort_keys=True, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise ValueError(f"the protocol is not JSON ({error}): give strings, numbers, lists") from error
    arrays = {name: np.asarray(array, order="C") for name, array in sums.items()}  # other layouts would be written as they lie in memory
    write_atomic(path, to_bytes(arrays, metadata={"protocol": text}))


def load(path: str | Path, protocol: Mapping[str, Any] | None = None) -> Saved:
    """Sums of a file that ``save`` wrote.

    Args:
      path: the file.
      protocol: what the sums must have been made with; None takes them as they are.

    Raises:
      FileNotFoundError: no such file. ValueError: not such a file, damaged, or another protocol (names the field).
    """
    from safetensors import safe_open

    from jaxgan.arrays import check_finite, read_arrays

    sums = read_arrays(path)
    try:
        with safe_open(str(path), "numpy") as file:
            found = json.loads((file.metadata() or {})["protocol"])
    except (KeyError, ValueError, OSError) as error:
        raise ValueError(f"{path} holds no protocol: it is not a file of saved statistics") from error
    if not isinstance(found, dict):
        raise ValueError(f"{path}: its protocol is {type(found).__name__}, not a set of fields")
    _check_sums(sums, path)
    check_finite(sums, path)
    if protocol is not None:
        check_protocol(protocol, found, path)
    return Saved(sums, found)


def _check_sums(sums: Sums, where: Any) -> None:
    """ValueError where arrays are not those of ``Moments`` or of ``Rows``."""
    from jaxgan.arrays import check_arrays

    if "scatter" in sums:
        d = sums["scatter"].shape[-1] if sums["scatter"].ndim else 0
        check_arrays(sums, {"n": ("int64", ()), "mean": ("float64", (d,)), "scatter": ("float64", (d, d))}, where, complete=True)
        if d < 1 or int(sums["n"]) < 0:
            raise ValueError(f"{where}: moments of {int(sums['n'])} rows of {d} columns")
        return
    first = sums.get("rows.0")
    if first is None or first.ndim != 2 or first.dtype.kind != "f":
        raise ValueError(f"{where}: neither moments (n, mean, scatter) nor rows (index.0, rows.0): {', '.join(sorted(sums)[:6]) or '-'}")
    expected: dict[str, tuple[str, tuple[int, ...]]] = {}
    for k in range((len(sums) + 1) // 2):
        rows = sums.get(f"rows.{k}")
        n = len(rows) if rows is not None and rows.ndim else 0
        expected |= {f"index.{k}": ("int64", (n,)), f"rows.{k}": (str(first.dtype), (n, first.shape[1]))}
    check_arrays(sums, expected, where, complete=True)


def _rows(rows: np.ndarray, columns: int, dtype: Any) -> np.ndarray:
    rows = np.asarray(rows)
    if rows.ndim != 2 or rows.shape[1] != columns:
        raise ValueError(f"rows of the shape {rows.shape} were added to sums of {columns} columns; [n, {columns}] is needed")
    rows = rows.astype(dtype)
    if not np.isfinite(rows).all():
        raise ValueError(f"row {int(np.flatnonzero(~np.isfinite(rows).all(axis=1))[0])} of the added rows holds NaN or infinity")
    return rows
