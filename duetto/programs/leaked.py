"""What an attack on a model's features found, over all seeds, and what speaks against a defence.

A defence is judged by what it takes from who knows it. *Kept* is the share of what the undefended features of the same
cut tell beyond the answer (the mean input of the class that it names) which the better of both decoders still gets. By
:data:`FAILS` or more the defence fails, and that is said; where only the decoder that does not know it was fooled, that
is said, too.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from duetto.errors import DataError
from duetto.evaluation import leakage, users
from duetto.evaluation.table import Interval
from duetto.evaluation.users import PerUser, Statistic
from duetto.programs.leak import PLAIN, Found
from duetto.programs.leak_people import GUESSES
from duetto.types import rng

FAILS, HELPS = 0.8, 0.4  # shares kept: by the one or more a defence fails, by the other or less it hides most
LEAST = {"ssim": 0.02, "psnr": 0.5}  # that undefended features must tell beyond the answer for a defence to be judged
MEASURES = {"ssim": "structural similarity, 1 is the input itself", "psnr": "peak signal to noise, dB"}


@dataclass(frozen=True)
class Line:
    """One cut and codec, over all seeds.

    Attributes:
        cut, codec, stage, share, up_bytes: as of :class:`duetto.programs.leak.Found`.
        accuracy: of the answers, mean of users.
        measure: what nearness is, of :data:`MEASURES`.
        nearness: of the better decoder, mean of users; and of the tenth of whom most is known.
        most: of these.
        naive: nearness of the decoder that does not know the codec.
        psnr: of the better decoder, dB, whatever the measure.
        kept: share of what the undefended features of this cut tell beyond the answer; None where this attacker finds
            no more in them.
        verdict: "undefended", "fails", "partly", "hides most" or "as answer".
    """

    cut: int
    codec: str
    stage: str
    share: float
    up_bytes: float
    accuracy: Interval
    measure: str
    nearness: Interval
    most: Interval
    naive: Interval
    psnr: float
    kept: float | None
    verdict: str


@dataclass(frozen=True)
class Told:
    """All lines, the guesses beside them, and the findings in words.

    Attributes:
        lines: by cut, then codec.
        guesses: of :data:`duetto.programs.leak_people.GUESSES`, mean nearness of users.
        notes: each a sentence.
    """

    lines: Sequence[Line]
    guesses: Mapping[str, Interval]
    notes: Sequence[str]


def told(found: Sequence[Found], redraws: int = 1000) -> Told:
    """The lines of all seeds, whose means count the same.

    Raises:
        DataError: nothing found.
    """
    if not found:
        raise DataError("nothing was attacked", "let the run finish first")
    measure = "ssim" if "ssim" in found[0].nearness else "psnr"
    guesses = {
        name: _mean([each.nearness[measure] for each in found if each.codec == name], users.user_mean, redraws)
        for name in GUESSES
    }
    answer = guesses[GUESSES[1]].value
    ways = list(dict.fromkeys((each.cut, each.codec) for each in found if each.cut >= 0))
    best = {way: [_better(each, measure) for each in found if (each.cut, each.codec) == way] for way in ways}
    mean = {way: float(np.mean([np.mean(each.nearness[measure]) for each in best[way]])) for way in ways}
    lines = []
    for cut, codec in ways:
        mine = best[cut, codec]
        naive = [each.naive[measure] for each in found if (each.cut, each.codec) == (cut, codec)]
        bare = mean[cut, PLAIN] - answer
        kept = (mean[cut, codec] - answer) / bare if bare > LEAST[measure] else None
        lines.append(
            Line(
                cut,
                codec,
                mine[0].stage,
                mine[0].share,
                float(np.mean([each.up_bytes for each in mine])),
                _mean([each.accuracy for each in mine], users.user_mean, redraws),
                measure,
                _mean([each.nearness[measure] for each in mine], users.user_mean, redraws),
                _mean([each.nearness[measure] for each in mine], leakage.most, redraws),
                _mean(naive, users.user_mean, redraws),
                float(np.mean([np.mean(each.nearness["psnr"]) for each in mine])),
                kept,
                _verdict(codec, kept),
            )
        )
    return Told(lines, guesses, _notes(lines, answer))


def measured(lines: Sequence[Line]) -> dict[tuple[int | frozenset[str], str], float]:
    """Cut and codec -> nearness for the tenth of the users of whom most is known: what a plan's limit reads."""
    return {(line.cut, line.codec): line.most.value for line in lines}


def save(what: Told, path: Path) -> None:
    """Write the lines as JSON, whole or not at all."""
    part = path.with_suffix(".part")
    part.write_text(json.dumps(asdict(what), indent=1) + "\n", encoding="utf-8")
    part.replace(path)


def read(folder: Path, model: str) -> dict[tuple[int | frozenset[str], str], float]:
    """What :func:`measured` gave of the lines that a run saved.

    Args:
        folder: of the run.
        model: TASK.small, TASK.large or MODULE:NAME: whose leakage it must be.

    Raises:
        DataError: no such run, or one of another model.
    """
    try:
        about = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        lines = json.loads((folder / "leakage.json").read_text(encoding="utf-8"))["lines"]
        found: dict[tuple[int | frozenset[str], str], float] = {}
        for line in lines:
            found[int(line["cut"]), str(line["codec"])] = float(line["most"]["value"])
        whose = str(about["model"]) if ":" in str(about["model"]) else f"{about['task']}.{about['model']}"
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{folder} holds no leakage ({error})", "name the folder of a run of `duetto leak`") from error
    if whose != model:
        raise DataError(f"{folder} tells what {whose} leaks", f"run `duetto leak` of {model}")
    return found


def _better(found: Found, measure: str) -> Found:
    """With the nearness of the decoder that came nearer on average."""
    naive = float(np.mean(found.naive[measure])) > float(np.mean(found.nearness[measure]))
    return Found(**{**asdict(found), "nearness": found.naive}) if naive else found


def _mean(seeds: Sequence[Sequence[float]], statistic: Statistic, redraws: int) -> Interval:
    """The mean over seeds of a statistic of its users, with the interval over users redrawn in each."""
    values, drawn = [], []
    for i, own in enumerate(seeds):
        each = np.asarray(own, np.float64)
        per = PerUser(np.arange(len(each)), np.ones(len(each)), each)
        values.append(float(statistic(per)))
        index = rng(("leak", "redraw users", i)).integers(len(each), size=(redraws, len(each)))
        drawn.append(np.asarray(statistic(per.drawn(index))))
    low, high = np.quantile(np.mean(drawn, axis=0), [0.025, 0.975])
    return Interval(float(np.mean(values)), float(low), float(high))


def _verdict(codec: str, kept: float | None) -> str:
    if codec == PLAIN:
        return "undefended"
    if kept is None:
        return "as answer"
    return "fails" if kept >= FAILS else "hides most" if kept <= HELPS else "partly"


def _notes(lines: Sequence[Line], answer: float) -> list[str]:
    """What a reader must not miss, the worst first."""
    found = []
    for codec in dict.fromkeys(line.codec for line in lines):
        failed = [line for line in lines if line.codec == codec and line.verdict == "fails"]
        if failed:
            where = ", ".join(str(line.cut) for line in failed)
            kept = [line.kept for line in failed if line.kept is not None]
            found.append(
                f"{codec} fails as a defence at cut {where}: an attacker who knows it keeps {min(kept):.0%} or more of "
                "what the undefended features give away."
            )
        for line in lines:
            fooled = line.kept is not None and line.nearness.value - line.naive.value > 0.2 * abs(line.nearness.value)
            if line.codec == codec and fooled and line.verdict != "hides most":
                found.append(
                    f"At cut {line.cut} {codec} only looks private: who does not know it comes to "
                    f"{line.naive.value:.3g}, who does to {line.nearness.value:.3g}."
                )
    bare = [line for line in lines if line.codec == PLAIN]
    deep = [line for line in bare if line.nearness.low > answer]
    if deep:
        last = deep[-1]
        found.append(
            f"Depth alone hides too little: after {last.share:.1%} of the model's work (cut {last.cut}) the undefended "
            f"features still bring an attacker to {last.nearness.value:.3g}, where the answer alone tells {answer:.3g}."
        )
    found.append(
        "These are lower bounds: a larger decoder, more public inputs or several messages about one input find more. "
        "Nothing here is a promise; a promise needs differential privacy or a cut that is not crossed."
    )
    return found
