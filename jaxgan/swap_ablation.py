"""What does each part of a disentangler do? One run for each variant of a config, and one table of all of them."""

from __future__ import annotations

import dataclasses
import json
import re
import statistics
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, Literal

from jaxgan import configure, files
from jaxgan.arguments import Parser, configured
from jaxgan.configure import Experiment

WHOLE = "as it is"
SEED = 1
"""Of what the scores draw by chance: that of `jaxgan swap evaluate`."""
READINGS = ("average", "average_prime", "gamma", "multiplier")
"""What a run of robust disentangling says of itself at its end: the information that T and T' read, and what weighs it down."""


def command(argv: Sequence[str]) -> int:
    """`jaxgan swap ablation`; help and mistakes answer without jax."""
    parser = Parser(
        "jaxgan swap ablation",
        description="Trains a config as it is and once with each switch, scores all of them on one set with the same judges, and prints\n"
        "one table: DIR/ablation.txt, DIR/ablation.json. The same command again resumes.",
        epilog="--switch model.self_decode=False --switch model.mu=0,model.epsilon=1 are two variants; `model.` may be left out.",
    )
    parser.add_argument("config", help="a config file of identity_pose or robust_disentangling")
    parser.add_argument("--switch", action="append", default=[], metavar="FIELD=VALUE[,FIELD=VALUE]", help="a variant; repeat for more")
    parser.add_argument("--seeds", type=int, nargs="+", default=[], help="every variant with each: mean and spread (default: run.seed)")
    parser.add_argument("--workdir", required=True, help="folder to make: a run for each variant, and the table")
    parser.add_argument("--tiny", action="store_true", help="the config's tiny() instead of its config()")
    parser.add_argument("--split", default="test", help="of the config's set, for the scores (default test)")
    parser.add_argument("--n", type=int, default=2000, help="pairs scored (default 2000)")
    parser.add_argument("--judges", default="", metavar="DIR", help="where the judges are kept and found again (default: the workdir)")
    parser.add_argument("--judge-steps", type=int, default=5000, help="training of the judges; 0: none (default 5000)")
    parser.add_argument("--probe-steps", type=int, default=1000, help="training of each probe (default 1000)")
    parser.add_argument("--audit-steps", type=int, default=2000, help="training of the audit's estimator (default 2000)")
    parser.add_argument("--audit-pairs", choices=("clip", "group"), default="clip", help="its frames: of one clip, or of two of a figure")
    options, fields = parser.parse_with_fields(argv)
    experiment = configured(options, fields, parser)
    scored = {key: getattr(options, key) for key in ("split", "n", "judges", "judge_steps", "probe_steps", "audit_steps", "audit_pairs")}
    say = lambda line: print(line, file=sys.stderr)  # noqa: E731
    print(run(experiment, options.switch, options.workdir, seeds=options.seeds, say=say, **scored))
    return 0


def variants(experiment: Experiment, switches: Sequence[str]) -> dict[str, Experiment]:
    """The experiment as it is, then with each switch: 'field=value', or several joined by commas; 'model.' may be left out.

    Raises:
      ValueError: a switch that is given twice, changes nothing, or names a field or value that is not there.
    """
    found = {WHOLE: experiment}
    for switch in switches:
        words = []
        for part in re.split(r",(?=[A-Za-z_][\w.]*=)", switch):
            name, equals, value = part.partition("=")
            if not equals or not name or not value:
                raise ValueError(f"--switch {switch}: write FIELD=VALUE, for instance model.self_decode=False")
            known = configure.field_names(experiment)
            name = name if name in known else f"model.{name}"
            words += [f"--{name}", *value.split()]
        changed = configure.override(experiment, words, prog=f"--switch {switch}")
        if changed == experiment:
            raise ValueError(f"--switch {switch} changes nothing: the config has that value already")
        if switch in found or changed in found.values():
            raise ValueError(f"--switch {switch} is there twice")
        found[switch] = changed
    return found


def folder(name: str, seed: int | None = None) -> str:
    """The folder of a variant below the workdir, of one of several seeds where there are several."""
    known = "whole" if name == WHOLE else re.sub(r"[^\w.=-]+", "_", name)
    return known if seed is None else f"{known}.seed{seed}"


def run(
    experiment: Experiment,
    switches: Sequence[str],
    workdir: Any,
    *,
    seeds: Sequence[int] = (),
    split: str = "test",
    n: int = 2000,
    judges: str = "",
    judge_steps: int = 5000,
    probe_steps: int = 1000,
    audit_steps: int = 2000,
    audit_pairs: Literal["clip", "group"] = "clip",
    say: Callable[[str], None] = lambda line: None,
) -> str:
    """Trains and scores every variant and returns the table; what is finished is not done again.

    ``judges``: the folder where the set's judges are kept and found again; empty: the workdir.
    ``seeds``: every variant is trained once with each, and its row has their mean +- standard deviation; none: once, with ``run.seed``.

    Raises:
      ValueError, FileNotFoundError, FileExistsError: before anything is trained.
    """
    from jaxgan import judges as judging
    from jaxgan import report, swap_scores
    from jaxgan.swap import open_sized
    from jaxgan.swapping import open_swapper
    from jaxgan.train import train

    found = variants(experiment, switches)
    if len(set(seeds)) < len(seeds):
        raise ValueError(f"--seeds {' '.join(map(str, seeds))}: a seed is there twice")
    family = configure.system_name(experiment.model)
    if family not in ("identity_pose", "robust_disentangling"):
        raise ValueError(f"the config is of the family {family}: ablations of swaps need identity_pose or robust_disentangling")
    place = Path(files.local_folder(workdir))
    if place.exists() and not place.is_dir():
        raise FileExistsError(f"--workdir is {workdir}, which is a file: name a folder")
    counts = {"n": n, "judge-steps": judge_steps, "probe-steps": probe_steps, "audit-steps": audit_steps}
    for name, value in counts.items():
        if value < (least := int(name == "n")):
            raise ValueError(f"--{name} is {value}: give at least {least}")
    sets, opened = {}, {}
    for name, variant in found.items():
        clips = open_sized(dataclasses.replace(variant.data, split=split), variant.model.side)
        sets[name] = opened.setdefault(clips.digest, clips)
    for clips in opened.values():
        swap_scores.check_audit(clips, audit_pairs if audit_steps else "clip")
        swap_scores.draw_pairs(clips, 1, SEED)
    results: dict[str, Any] = {name: {} for name in found}
    known: dict[str, Any] = {}
    fixed: dict[str, Any] = {}
    for seed, name in ((seed, name) for seed in seeds or (None,) for name in found):
        variant, clips, own = found[name], sets[name], place / folder(name, seed)
        if seed is not None:
            variant = dataclasses.replace(variant, run=dataclasses.replace(variant.run, seed=seed))
        say(f"{name}: training in {own}")
        ended = train(variant, own, quiet=True)
        if ended.step < ended.steps:
            return f"{name}: stopped at step {ended.step:,} of {ended.steps:,}; the same command goes on"
        swapper, params, facts = open_swapper(own)
        if clips.digest not in known:
            drawn = judge_steps > 0 and swap_scores.drawable(clips)
            known[clips.digest] = judging.kept(judges or place, clips, steps=judge_steps, say=say) if drawn else None
        judge = known[clips.digest]
        settings = {"n": n, "seed": SEED, "probe_steps": probe_steps, "audit_steps": audit_steps, "audit_pairs": audit_pairs}
        mark = {**settings, "networks": facts["networks"], "set digest": clips.digest, "version": swap_scores.VERSION}
        mark["judges"] = None if judge is None else judging.checksum(judge)
        scores = _read(own / "scores.json", mark)
        if scores is None:
            told = {"facts": {**facts, "settings": mark}, "others": fixed.get(clips.digest), "say": say}
            result = swap_scores.evaluate(swapper, params, clips, judge, **settings, **told)
            scores = swap_scores.plain(result)
            files.write_atomic(own / "scores.json", (json.dumps(scores, indent=1, allow_nan=False) + "\n").encode())
        if "table" in scores:
            fixed[clips.digest] = {row: values for row, values in scores["table"].items() if row != "model"}
        last = (report.read_metrics(own / "metrics.jsonl") or [{}])[-1]
        scores = {**scores, "end": {key: last[key] for key in READINGS if key in last}}
        if seed is None:
            results[name] = scores
        else:
            results[name].setdefault("seeds", {})[str(seed)] = scores
    text = to_text(results)
    files.write_atomic(place / "ablation.txt", (text + "\n").encode())
    files.write_atomic(place / "ablation.json", (json.dumps(results, indent=1, allow_nan=False) + "\n").encode())
    return f"{text}\n\ntable: {place / 'ablation.txt'}"


def _read(path: Path, mark: dict[str, Any]) -> dict[str, Any] | None:
    """Scores that were computed of these networks in this way; None where they are not there."""
    try:
        scores = json.loads(path.read_text())
    except (OSError, ValueError):
        return None
    return scores if scores.get("protocol", {}).get("settings") == mark else None


def to_text(results: dict[str, dict[str, Any]]) -> str:
    """One row for each variant, then the rows that need no system."""
    from jaxgan import swap_scores

    rows = {name: _over(scores["seeds"].values()) if "seeds" in scores else _row(scores) for name, scores in results.items()}
    first = next(iter(results.values()))
    seeds = list(first.get("seeds", ()))
    first = first["seeds"][seeds[0]] if seeds else first
    rows |= {name: values for name, values in first.get("table", {}).items() if name != "model"}
    protocol = {key: value for key, value in first["protocol"].items() if key in ("set", "set digest", "pairs", "seed")}
    if seeds:
        protocol["mean +- standard deviation of the runs with seed" if len(seeds) > 1 else "run with seed"] = " ".join(seeds)
    return "\n".join([", ".join(f"{key} {value}" for key, value in protocol.items()), "", *swap_scores.table(rows)])


def _over(scores: Iterable[dict[str, Any]]) -> dict[str, Any]:
    """Each figure's mean and standard deviation (of the sample) over the runs of several seeds, as words; one that is the same in all stays
    as it is, and one that some run does not have as a number is left out."""
    rows = [_row(one) for one in scores]
    found: dict[str, Any] = {}
    for name, value in rows[0].items():
        values = [row.get(name) for row in rows]
        if len(set(values)) == 1:
            found[name] = value
        elif all(isinstance(one, (int, float)) for one in values):
            mean = statistics.fmean(values)
            digits = 4 if abs(mean) < 1 else 2
            found[name] = f"{mean:.{digits}f}+-{statistics.stdev(values):.{digits}f}"
    return found


def _row(scores: dict[str, Any]) -> dict[str, Any]:
    row = dict(scores["table"]["model"]) if "table" in scores else {f"same clip {key}": value for key, value in scores["same clip"].items()}
    for factor, values in scores.get("probes", {}).get("identity from pose code", {}).items():
        row[f"probe {factor}"] = values["leak"]
    if "audit" in scores:
        row["nats"] = scores["audit"]["nats"]
    if "audit of drawn codes" in scores:
        row["nats drawn"] = scores["audit of drawn codes"]["nats"]
    row |= scores.get("end", {})
    if "verifiability" in scores:
        for name, column in (("generated", "made"), ("true target", "true")):
            found = scores["verifiability"][name]
            row |= {f"verifiability {column}": found["score"], f"residual {column}": found["residual"]}
    row["steps"] = scores["protocol"]["step"]
    return row
