"""Where to cut over real networks: every method beside every baseline, on every trace, and what was promised of it.

``python benchmarks/split/grid.py --json grid.json``: the grid of ``grid.toml`` on all traces in ``$DUETTO_DATA/traces``
(``--traces`` takes any folder of that layout). A cell is a network, a device and a cloud; its stages cost what the
roofline of ``duetto/profiles.toml`` says of the work that staging the network found (``--cache`` keeps that). Costs are
modelled, links are measured: trust orders and shares, not milliseconds.

Links are sorted by name; hyper-parameters were chosen on numbers 0, 2, 4 ..., "tuned on", and the others are "apart".
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import replay
from columns import Columns, columns

from duetto.errors import DataError
from duetto.evaluation import plot
from duetto.policies.cuts import (
    COMPRESSED,
    RAW,
    Coding,
    ExitShares,
    Objective,
    Options,
    chained,
    priced,
    table,
    verdict,
)
from duetto.policies.learned_plan import LearnedPlan
from duetto.policies.planned import Planned, figures
from duetto.simulation import energy, link
from duetto.simulation.energy import Radio

HERE = Path(__file__).parent
DEVICE_ROW, RAW_ROW, COMPRESSED_ROW = 0, 1, 2
EXTREMES = {"device only": DEVICE_ROW, "cloud only, raw": RAW_ROW, "cloud only, compressed": COMPRESSED_ROW}
OWN = "own measurements, rescue"


def roofline(found: Columns, flops: float, bandwidth: float) -> np.ndarray:
    """``[cuts]`` seconds of the stages before each cut."""
    each = np.maximum(np.array(found.flops) / flops, np.array(found.moved) / bandwidth)
    return np.concatenate([[0.0], np.cumsum(each)])[list(found.cuts)]


def cell(grid: Mapping[str, Any], found: Columns, device: str, times: float, scenario: str) -> Options:
    """All options of a network on a device with a cloud so many times as fast."""
    profile, cloud, chosen = energy.profiles()[device], grid["clouds"], grid["scenarios"][scenario]
    codings = tuple(
        Coding(
            name,
            (codec := grid["codecs"][name])["ratio"],
            1 / (codec["share"] * profile.memory_bandwidth),
            0.0,
            codec["slowdown"],
            codec["excess_risk"],
        )
        for name in chosen["codecs"]
    )
    prices = energy.prices()["default"]
    return chained(
        roofline(found, profile.flops, profile.memory_bandwidth),
        roofline(
            found,
            min(times * profile.flops, cloud["most_flops"]),
            min(times * profile.memory_bandwidth, cloud["most_bandwidth"]),
        ),
        found.frontier,
        found.cuts,
        input_bytes=grid["models"][found.name]["input_bytes"],
        compressed_bytes=grid["models"][found.name]["compressed_bytes"],
        answer_bytes=grid["replay"]["answer_bytes"],
        watts=profile.compute_watts,
        overhead_seconds=profile.overhead_seconds,
        cloud_overhead_seconds=cloud["overhead_seconds"],
        codings=codings,
        exits=ExitShares(tuple(grid["exits"]["at"]), tuple(grid["exits"]["answered"])) if chosen["exits"] else None,
        call_dollars=prices.per_call,
        second_dollars=prices.per_cloud_second,
    )


def few(options: Options, radios: Sequence[Radio], gap: float) -> Options:
    """The three options without a cut, and whatever is best for anything anywhere."""
    kept = {DEVICE_ROW, RAW_ROW, COMPRESSED_ROW}
    at = {label: row for row, label in enumerate(options.label)}
    for radio, seconds, objective in (
        (None, 0.0, "latency"),
        *((radio, seconds, "energy") for radio in radios for seconds in (0.0, gap)),
    ):
        best = table(options, objective, radio=radio, gap_seconds=seconds)
        kept |= {at[label] for label in best.options.label}
    return options.rows(sorted(kept))


def streams(grid: Mapping[str, Any], folder: Path | None, seed: int) -> tuple[list[replay.Stream], list[str]]:
    """Every link of the networks, sorted by name, and its radio's name."""
    found = []
    settings = grid["replay"]
    for name in settings["networks"]:
        try:
            network = link.named(name, folder)
        except DataError as error:
            print(error, file=sys.stderr)
            continue
        for each in network.links:
            made = replay.stream(
                each,
                interval=settings["interval_seconds"],
                requests=settings["requests"],
                sigma=settings["rtt_sigma"],
                seed=seed,
            )
            found.append((made.name, made, grid["radios"][name]))
    if not found:
        raise DataError("no traces", "set DUETTO_DATA to the folder that holds traces/, or give --traces")
    found.sort(key=lambda each: each[0])
    return [made for _, made, _ in found], [radio for _, _, radio in found]


def methods(world: replay.World, objective: Objective, sigma: float, seed: int) -> dict[str, replay.Outcome]:
    """Everything that is compared, by name; those that depend on which links count are left to :func:`judged`."""
    policy = Planned(objective=objective, gap_seconds=world.gap)
    alone = replace(policy, rescue=False)
    start = np.broadcast_to(replay.rates(world, 0.0, 1.0)[:1], world.alive.shape)
    found = {name: replay.fixed(world, np.array(row)) for name, row in EXTREMES.items()}
    return {
        **found,
        "planned at the start": replay.foreseen(world, objective, start),
        OWN: replay.dynamic(world, policy, "own", sigma=sigma, seed=seed),
        "own measurements, no rescue": replay.dynamic(world, alone, "own", sigma=sigma, seed=seed),
        "link monitor, rescue": replay.dynamic(world, policy, "monitor"),
        "link monitor, no rescue": replay.dynamic(world, alone, "monitor"),
        "learned, own, rescue": replay.dynamic(
            world, policy, "own", sigma=sigma, seed=seed, learner=LearnedPlan(policy)
        ),
        "oracle of the next second": replay.foreseen(world, objective, replay.rates(world, 0.0, 1.0)),
        "clairvoyant": replay.clairvoyant(world, objective),
    }


def judged(
    world: replay.World, objective: Objective, found: Mapping[str, replay.Outcome], which: np.ndarray
) -> dict[str, dict[str, Any]]:
    """What every method is worth over the links ``which``; costs are means over requests, then over links."""
    best = replay.static(world, objective, which)
    everything = {"static in hindsight": best, **found}
    means = {
        name: replay.by_link(world, replay.cost(each, objective))[which].mean(0) for name, each in everything.items()
    }
    least = replay.by_link(world, replay.cost(found["clairvoyant"], objective))[which]
    alive = world.alive[:, which]
    slow = _p95(best.seconds[:, which], alive)
    fixed = np.min([means[name] for name in EXTREMES], axis=0)
    ceiling = float((1 - means["clairvoyant"] / means["static in hindsight"]).mean())
    rows = {}
    for name, each in everything.items():
        saving = 1 - means[name] / means["static in hindsight"]
        regret = replay.by_link(world, replay.cost(each, objective))[which] / least - 1
        over = fixed / means[name]
        rows[name] = {
            "cost": float(means[name].mean()),
            "saving_mean": float(saving.mean()),
            "saving_geometric": float(1 - np.exp(np.log1p(-saving).mean())),
            **{f"saving_q{q}": float(np.percentile(saving, q)) for q in (25, 50, 75, 90)},
            "captured": float(saving.mean() / ceiling) if ceiling else 1.0,
            "worse_than_static": float((saving < -0.02).mean()),
            "regret_mean": float(regret.mean()),
            "regret_median": float(np.median(regret)),
            "regret_below_5": float((regret < 0.05).mean()),
            "p95_over_static": float(np.median(_p95(each.seconds[:, which], alive) / slow)),
            "over_best_extreme_mean": float(over.mean()),
            "over_best_extreme_geometric": float(np.exp(np.log(over).mean())),
            "over_best_extreme_median": float(np.median(over)),
            "joules": float(replay.by_link(world, each.joules)[which].mean()),
            "dollars": float(replay.by_link(world, each.dollars)[which].mean()),
            "rescued": each.rescued,
            "probed": each.probed,
            "cells": np.round(saving, 5).tolist(),
        }
    return rows


def _p95(seconds: np.ndarray, alive: np.ndarray) -> np.ndarray:
    """``[C]`` over all requests of the links."""
    return np.asarray(np.percentile(seconds[alive], 95, axis=0))


def verdicts(
    world: replay.World, options: Sequence[Options], radios: Sequence[Radio], objective: Objective
) -> dict[str, np.ndarray]:
    """For every link and cell: was a split advised (``[T, C]``), and what the advised option costs over the best one.

    The advice knows the link's harmonic mean bandwidth and round trip, no more.
    """
    means = replay.by_link(world, replay.cost(world, objective))
    advised, over = np.zeros(means.shape[:2], bool), np.zeros(means.shape[:2])
    for t, each in enumerate(world.streams):
        rates = np.maximum(replay.rates(world, 0.0, 1.0)[: len(each.times), t], 0.03)
        mbps = float(1 / np.mean(1 / rates))
        for c, cell_ in enumerate(options):
            radio = radios[t]
            said = verdict(
                cell_, objective, mbps, None, each.median_rtt, radio=radio, gap_seconds=world.gap, margin=0.0
            )
            advised[t, c] = said.split
            over[t, c] = means[t, c, cell_.label.index(said.label)] / means[t, c].min()
    return {"split": advised, "over": over}


def neurosurgeon(grid: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """The grid of Kang et al. 2017 at constant rates: applications x processors x networks, against raw-input cloud."""
    settings, rows = grid["neurosurgeon"], []
    cloud = settings["cloud"]
    for name in settings["applications"]:
        found = columns(name, folder)
        for processor in settings["processors"].values():
            options = chained(
                roofline(found, processor["flops"], processor["bandwidth"]),
                roofline(found, cloud["flops"], cloud["bandwidth"]),
                found.frontier,
                found.cuts,
                input_bytes=grid["models"][name]["input_bytes"],
                compressed_bytes=grid["models"][name]["compressed_bytes"],
                answer_bytes=grid["replay"]["answer_bytes"],
                watts=processor["watts"],
                cloud_overhead_seconds=cloud["overhead_seconds"],
            )
            label = np.array(options.label)
            extreme, raw, small = ~options.splits, label == RAW, label == COMPRESSED
            for network in settings["up_mbps"]:
                costs = priced(
                    options,
                    settings["up_mbps"][network],
                    settings["down_mbps"][network],
                    settings["rtt_seconds"][network],
                    radio=energy.radios()[settings["radios"][network]],
                )
                row = {"text": name.startswith("text")}
                for objective in ("latency", "energy"):
                    of = costs.of(objective)
                    row[objective] = {
                        "planner, raw input": of[raw][0] / of[~small].min(),
                        "switch, raw input": of[raw][0] / of[extreme & ~small].min(),
                        "planner, compressed input": of[raw][0] / of.min(),
                        "switch, compressed input": of[raw][0] / of[extreme].min(),
                        "planner over compressed cloud": of[small][0] / of.min(),
                    }
                rows.append(row)
    found_ = {}
    for objective in ("latency", "energy"):
        for name in rows[0][objective]:
            ratio = np.array([row[objective][name] for row in rows])
            images = np.array([row[objective][name] for row in rows if not row["text"]])
            found_[f"{objective}: {name}"] = {
                "mean": ratio.mean(),
                "geometric": np.exp(np.log(ratio).mean()),
                "median": np.median(ratio),
                "without_text": images.mean(),
                "saving_mean": (1 - 1 / ratio).mean(),
            }
    return found_


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--traces", type=Path, help="a folder of traces; by default $DUETTO_DATA/traces")
    parser.add_argument("--cache", type=Path, default=Path.home() / ".cache" / "duetto" / "split")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--quick", action="store_true", help="few cells and networks")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--plot", type=Path, help="write a picture of the savings, as SVG")
    parser.add_argument("--seen", type=Path, help="only report what --json wrote before")
    asked = parser.parse_args()
    if asked.seen:
        result = json.loads(asked.seen.read_text())
        report(result)
        if asked.plot:
            asked.plot.write_text(picture(result, "apart"))
        return
    grid = tomllib.loads((HERE / "grid.toml").read_text(encoding="utf-8"))
    if asked.quick:
        quick = grid["quick"]
        grid["replay"]["networks"] = quick["networks"]
        grid["devices"] |= {"models": quick["models"], "names": quick["devices"]}
        grid["scenarios"] = {name: grid["scenarios"][name] for name in quick["scenarios"]}
    folder = asked.traces or (Path(os.environ["DUETTO_DATA"]) / "traces" if "DUETTO_DATA" in os.environ else None)
    began = time.perf_counter()

    def shown(text: str) -> None:
        print(f"{time.perf_counter() - began:6.0f} s  {text}", file=sys.stderr, flush=True)

    interval, sigma = grid["replay"]["interval_seconds"], grid["replay"]["measurement_sigma"]
    links, radio_names = streams(grid, folder, asked.seed)
    every = [energy.radios()[name] for name in radio_names]
    watts = np.stack([figures(each) for each in every])
    nets = {name: columns(name, asked.cache) for name in grid["devices"]["models"]}
    where = [
        (net, device, times) for net in nets for device in grid["devices"]["names"] for times in grid["clouds"]["times"]
    ]
    shown(f"{len(links)} links, {len(where)} cells")
    halves = {"tuned on": np.arange(len(links)) % 2 == 0, "apart": np.arange(len(links)) % 2 == 1}
    halves["all"] = np.ones(len(links), bool)
    result: dict[str, Any] = {"grid": grid, "links": [each.name for each in links], "cells": where, "seed": asked.seed}
    result["rows"], result["verdicts"] = {}, {}
    for scenario in grid["scenarios"]:
        whole = [cell(grid, nets[net], device, times, scenario) for net, device, times in where]
        options = [few(each, list({id(r): r for r in every}.values()), interval) for each in whole]
        for objective, tail in (("latency", "none"), *(("energy", tail) for tail in grid["energy"]["tails"])):
            gap = interval if tail == "stream" else 0.0
            world = replay.world(links, options, watts, gap, interval)
            found = methods(world, objective, sigma, asked.seed)
            title = f"{scenario}: {objective}" + (f", tail {tail}" if objective == "energy" else "")
            result["rows"][title] = {
                half: judged(world, objective, found, which) for half, which in halves.items() if which.any()
            }
            said = verdicts(world, options, every, objective)
            result["verdicts"][title] = {
                half: _verdict_row(said, which) for half, which in halves.items() if which.any()
            }
            shown(title)
    result["neurosurgeon"] = {} if asked.quick else neurosurgeon(grid, asked.cache)
    result["seconds"] = time.perf_counter() - began
    report(result)
    if asked.json:
        asked.json.write_text(json.dumps(result, indent=1, default=float))
    if asked.plot:
        asked.plot.write_text(picture(result, "apart"))
    shown("done")


def _verdict_row(said: Mapping[str, np.ndarray], which: np.ndarray) -> dict[str, float]:
    split, over = said["split"][which], said["over"][which]
    kept = ~split
    return {
        "do_not_split": float(kept.mean()),
        "right_within_5": float((over[kept] <= 1.05).mean()) if kept.any() else 1.0,
        "split_right_within_5": float((over[split] <= 1.05).mean()) if split.any() else 1.0,
    }


PLOTTED = ("int8: latency", "int8: energy, tail stream", "everything: latency", "everything: energy, tail stream")


def picture(result: Mapping[str, Any], half: str) -> str:
    """The saving of every method in every cell, as SVG."""
    panels = []
    for title in (each for each in PLOTTED if each in result["rows"]):
        rows = result["rows"][title][half]
        shown = [(name, row["cells"], name == OWN) for name, row in rows.items() if name != "static in hindsight"]
        panels.append((f"{title}, links {half}", shown))
    title = f"What each way to plan saves over the best static plan in hindsight, in {len(result['cells'])} cells"
    return plot.spreads(panels, title, "saving of a cell's mean cost, %", (-0.3, 0.5))


def report(result: Mapping[str, Any]) -> None:
    """Tables and targets, as Markdown."""
    for title, halves in result["rows"].items():
        print(f"\n## {title}")
        for half, rows in halves.items():
            print(f"\n{half}: saving over the best static plan in hindsight, mean of a cell's cost")
            print("| method | mean | geometric | median [quartiles] p90 | captured | worse > 2 % | regret mean, median"
                  " | < 5 % | p95 | over best extreme: mean, geometric, median | J | $ a million |")  # fmt: skip
            print("|:--|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|")
            for name, row in rows.items():
                print(_line(name, row), flush=True)
    print(
        "\n## Do not split\n| scenario | half | said | best within 5 % | split said: best within 5 % |\n"
        "|:--|:--|--:|--:|--:|"
    )
    for title, halves in result["verdicts"].items():
        for half, row in halves.items():
            shares = " | ".join(f"{100 * value:.1f} %" for value in row.values())
            print(f"| {title} | {half} | {shares} |")
    if result["neurosurgeon"]:
        print("\n## Neurosurgeon's grid, against the cloud alone with the input as it is")
        print("| | mean | geometric | median | mean without text | saving, mean |\n|:--|--:|--:|--:|--:|--:|")
        for name, row in result["neurosurgeon"].items():
            ratios = " | ".join(f"{row[each]:.2f}x" for each in ("mean", "geometric", "median", "without_text"))
            print(f"| {name} | {ratios} | {100 * row['saving_mean']:.0f} % |")
    print("\n## Targets\n| target | half | aim | measured | |\n|:--|:--|--:|--:|:--|")
    for what, half, aim, value, met in targets(result):
        print(f"| {what} | {half} | {aim} | {value} | {'met' if met else '**missed**'} |")


def _line(name: str, row: Mapping[str, float]) -> str:
    def percent(key: str) -> str:
        return f"{100 * row[key]:.1f}"

    quartiles = f"{percent('saving_q50')} [{percent('saving_q25')}, {percent('saving_q75')}] {percent('saving_q90')}"
    over = ", ".join(f"{row[f'over_best_extreme_{kind}']:.2f}" for kind in ("mean", "geometric", "median"))
    return (
        f"| {name} | {percent('saving_mean')} | {percent('saving_geometric')} | {quartiles} | {percent('captured')} | "
        f"{percent('worse_than_static')} | {percent('regret_mean')}, {percent('regret_median')} | "
        f"{percent('regret_below_5')} | {row['p95_over_static']:.2f} | {over} | {row['joules']:.3f} | "
        f"{1e6 * row['dollars']:.2f} |"
    )


def targets(result: Mapping[str, Any]) -> list[tuple[str, str, str, str, bool]]:
    """What was to be reached: (what, half, aim, measured, whether)."""
    found = []

    def add(what: str, half: str, value: float, aim: float, unit: str = "%", most: bool = False) -> None:
        scale = 100 if unit == "%" else 1
        sign = "<=" if most else ">="
        met = value <= aim if most else value >= aim
        found.append((what, half, f"{sign} {scale * aim:g} {unit}", f"{scale * value:.2f} {unit}", bool(met)))

    for title, halves in result["rows"].items():
        for half, rows in halves.items():
            row = rows[OWN]
            latency = "latency" in title
            if title.startswith("int8"):
                add(f"{title}: captured of the clairvoyant's saving", half, row["captured"], 0.75)
                add(f"{title}: cells worse than static by > 2 %", half, row["worse_than_static"], 0.02, most=True)
                add(f"{title}: regret", half, row["regret_mean"], 0.03 if latency else 0.05, most=True)
                if latency:
                    add(f"{title}: p95 over static", half, row["p95_over_static"], 0.9, "x", most=True)
            if title.startswith("everything"):
                add(f"{title}: over the best fixed extreme", half, row["over_best_extreme_mean"], 1.3, "x")
    for title, halves in result["verdicts"].items():
        for half, row in halves.items():
            add(f"{title}: 'do not split' within 5 % of the best", half, row["right_within_5"], 0.95)
    if rows := result["neurosurgeon"]:
        add("Neurosurgeon: latency, mean", "", rows["latency: planner, raw input"]["mean"], 3.1, "x")
        add("Neurosurgeon: latency, geometric mean", "", rows["latency: planner, raw input"]["geometric"], 3.1, "x")
        add("Neurosurgeon: energy, compressed input", "", rows["energy: planner, compressed input"]["saving_mean"], 0.8)
    return found


if __name__ == "__main__":
    main()
