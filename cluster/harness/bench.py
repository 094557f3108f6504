"""`cluster/bench`: what a request costs Henge and its peers, in turn, in the same run, from the same generator.

Processor time a request is the measure: the nanoseconds that the kernel counts for the server's threads, over the
requests that the generator got answered. It drifts by a third between runs on one machine, so the two sides take turns
(A B A B), and what is stated is the median of the ratios within a round, with the least and the greatest.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import os
import pathlib
import platform
import signal
import statistics
import subprocess
import sys
from typing import Any, Iterator

from . import memcached
from .bench_cases import CASES, NAMES, SPECIAL, Case, Skipped, describe
from .bench_servers import (
    Henge,
    Memcached,
    Nutcracker,
    Pinning,
    Ports,
    Server,
    has_memcached,
    has_nutcracker,
    pinned,
)
from .nodes import ClusterError

CONNECTIONS = 50
SECONDS, ROUNDS = 2.0, 5
QUICK_SECONDS, QUICK_ROUNDS = 0.7, 3
# The program of the generator ends with this where a server does not speak what was asked for.
UNSPOKEN = 3


@dataclasses.dataclass
class Bench:
    """What all cases share: programs, ports, how long, how often."""

    programs: pathlib.Path
    numbers: Ports
    rounds: int
    seconds: float
    # Everything tiny, to see that it works; the figures mean nothing.
    smoke: bool
    quick: bool
    traces: pathlib.Path | None

    @property
    def henge(self) -> str:
        return str(self.programs / "henge")

    def say(self, text: str) -> None:
        print(text, flush=True)

    def generate(self, server: Server, mode: str, *arguments: object, watch: bool = True) -> dict[str, Any]:
        """Runs the generator against a server; what it says. Raises where a reply was wrong."""
        command = [str(self.programs / "henge-load"), mode, "--json"]
        for address in server.addresses:
            command += ["--server", address]
        for pid in server.pids if watch else []:
            command += ["--pid", str(pid)]
        command += [str(argument) for argument in arguments]
        done = subprocess.run(
            ["setpriv", "--pdeathsig", "KILL", *pinned(Pinning.choose().generator, command)],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=1800,
        )
        if done.returncode == UNSPOKEN:
            raise Skipped(f"{server.name} does not speak it")
        if done.returncode != 0:
            raise ClusterError(f"against {server.name}: {' '.join(command)}\n{done.stderr.strip()[-500:]}")
        return json.loads(done.stdout)

    def scaled(self, count: int, least: int = 500) -> int:
        """A count of keys or requests, tiny in a smoke run."""
        return max(least, count // 100) if self.smoke else count


def spread(values: list[float]) -> dict[str, float]:
    return {"median": statistics.median(values), "least": min(values), "greatest": max(values)}


# MARK: processor time


@contextlib.contextmanager
def group(bench: Bench, name: str) -> Iterator[tuple[Server, Server]]:
    """Henge and the peer of a group of cases, both up."""
    if name in ("single", "workers-2"):
        if not has_memcached():
            raise Skipped("no memcached")
        workers = 2 if name == "workers-2" else 1
        with Henge(bench.henge, bench.numbers, workers=workers) as henge:
            with Memcached(bench.numbers, threads=workers) as peer:
                yield henge, peer
    elif name == "sealed-r1":
        with Henge(bench.henge, bench.numbers, count=3, replicas=1, sealed=True) as sealed:
            with Henge(bench.henge, bench.numbers, count=3, replicas=1) as plain:
                yield sealed, plain
    else:
        if not has_nutcracker() or not has_memcached():
            raise Skipped("no nutcracker or no memcached")
        replicas = 1 if name == "cluster-r1" else 0
        with Henge(bench.henge, bench.numbers, count=3, replicas=replicas) as henge:
            with Nutcracker(bench.numbers) as peer:
                yield henge, peer


def arguments_of(bench: Bench, case: Case) -> list[object]:
    return [
        *("--connections", CONNECTIONS, "--depth", case.depth, "--get-share", case.get_share),
        *("--keys-per-get", case.keys_per_get, "--value-size", case.value_bytes),
        *("--keys", bench.scaled(case.keys), "--wire", case.wire),
    ]


def measure(bench: Bench, case: Case, sides: tuple[Server, Server]) -> dict[str, Any]:
    """Both sides in turn, `bench.rounds` times."""
    for side in sides:
        keys = bench.scaled(case.keys)
        bench.generate(side, "fill", "--keys", keys, "--value-size", case.value_bytes, "--depth", 4, watch=False)
    rounds: list[list[dict[str, Any]]] = []
    for number in range(bench.rounds):
        done = []
        for side in sides:
            seconds = ("--warm-up", bench.seconds / 10, "--seconds", bench.seconds, "--seed", number + 1)
            result = bench.generate(side, "closed", *arguments_of(bench, case), *seconds)
            if case.get_share == 1.0 and result["misses"]:
                raise ClusterError(f"{case.name}: {side.name} missed {result['misses']} keys that it was given")
            per = result["gets"] if case.unit == "key" else result["commands"]
            if not per:
                raise ClusterError(f"{case.name}: {side.name} answered nothing in {bench.seconds} s")
            result["server_us"] = sum(result["server_ns"]) / 1000 / per
            result["generator_us"] *= result["commands"] / per
            result["per_second"] = per / result["seconds"]
            done.append(result)
        rounds.append(done)
    ratios = [ours["server_us"] / max(theirs["server_us"], 1e-9) for ours, theirs in rounds]
    return {
        "case": case.name,
        "what": describe(case),
        "unit": case.unit,
        "peer": sides[1].name,
        "henge_us": spread([ours["server_us"] for ours, _ in rounds]),
        "peer_us": spread([theirs["server_us"] for _, theirs in rounds]),
        "ratio": spread(ratios),
        "goal": goal_of(case),
        "henge_per_second": statistics.median(ours["per_second"] for ours, _ in rounds),
        "peer_per_second": statistics.median(theirs["per_second"] for _, theirs in rounds),
        "generator_us": {
            "henge": statistics.median(ours["generator_us"] for ours, _ in rounds),
            "peer": statistics.median(theirs["generator_us"] for _, theirs in rounds),
        },
        "rounds": [{"henge": ours, "peer": theirs} for ours, theirs in rounds],
    }


def sends_singly() -> bool:
    """Whether this memcached sends each reply to a pipelined text get by itself, as those before 1.6.35 do."""
    return has_memcached() and tuple(int(part) for part in memcached.version().split(".")[:3]) < (1, 6, 35)


def goal_of(case: Case) -> float | None:
    return case.goal.single if sends_singly() else case.goal.batched


HEAD = (
    f"{'case':14} {'Henge us':>9} {'peer us':>9} {'ratio':>6} {'(least..greatest)':>18} {'goal':>5}"
    f" {'Henge k/s':>10} {'peer k/s':>9} {'generator us':>13}"
)


def row(result: dict[str, Any]) -> str:
    ratio, generator = result["ratio"], result["generator_us"]
    goal = f"{result['goal']:.2f}" if result["goal"] is not None else "-"
    return (
        f"{result['case']:14} {result['henge_us']['median']:9.3f} {result['peer_us']['median']:9.3f}"
        f" {ratio['median']:6.3f} {'(%.3f..%.3f)' % (ratio['least'], ratio['greatest']):>18} {goal:>5}"
        f" {result['henge_per_second'] / 1e3:10.1f} {result['peer_per_second'] / 1e3:9.1f}"
        f" {'%.2f / %.2f' % (generator['henge'], generator['peer']):>13}"
    )


def run_costs(bench: Bench, names: list[str], report: dict[str, Any]) -> None:
    chosen = [case for case in CASES if case.name in names]
    if not chosen:
        return
    bench.say("\nprocessor time of the server, microseconds a request (multiget: a key), both sides in turn")
    bench.say(HEAD)
    for servers in dict.fromkeys(case.servers for case in chosen):
        own = [case for case in chosen if case.servers == servers]
        try:
            with group(bench, servers) as sides:
                for case in own:
                    try:
                        result = measure(bench, case, sides)
                        report["cases"].append(result)
                        bench.say(row(result))
                    except Skipped as why:
                        skip(bench, report, case.name, why)
        except Skipped as why:
            for case in own:
                skip(bench, report, case.name, why)


def skip(bench: Bench, report: dict[str, Any], name: str, why: Skipped) -> None:
    report["skipped"].append({"case": name, "why": str(why)})
    bench.say(f"{name:14} skipped: {why}")


# MARK: the command


def machine() -> dict[str, Any]:
    model = next(
        (
            line.partition(":")[2].strip()
            for line in pathlib.Path("/proc/cpuinfo").read_text().splitlines()
            if line.startswith("model name")
        ),
        platform.machine(),
    )
    pinning = Pinning.choose()
    return {
        "processor": model,
        "processors": os.cpu_count(),
        "kernel": platform.release(),
        "server_on": pinning.server,
        "generator_on": pinning.generator,
        "memcached": memcached.version() if has_memcached() else None,
    }


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="cluster/bench", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--case", action="append", metavar="NAME", help="only this case; may be given again (--list)")
    parser.add_argument("--list", action="store_true", help="print the names of the cases")
    parser.add_argument("--rounds", type=int, help=f"how often each side is driven ({ROUNDS})")
    parser.add_argument("--seconds", type=float, help=f"how long each time ({SECONDS:g})")
    parser.add_argument("--quick", action="store_true", help="short: a rough figure")
    parser.add_argument("--smoke", action="store_true", help="tiny: only whether all of it works")
    parser.add_argument("--json", type=pathlib.Path, metavar="PATH", help="where the results go, too")
    parser.add_argument("--traces", type=pathlib.Path, metavar="DIR", help="recorded sequences, for hit-ratio, promoted")
    parser.add_argument("--programs", type=pathlib.Path, metavar="DIR", help="take the programs from there; build none")
    parser.add_argument("--base-port", type=int, metavar="PORT", help="take ports from here on, instead of any")
    options = parser.parse_args()
    unknown = [name for name in options.case or [] if name not in NAMES]
    if unknown:
        parser.error(f"no case is called {unknown[0]}: see --list")
    if options.rounds is not None and options.rounds < 1:
        parser.error("--rounds is at least 1")
    if options.seconds is not None and options.seconds <= 0:
        parser.error("--seconds is above 0")
    return options


def run(options: argparse.Namespace) -> int:
    from . import bench_special

    rounds, seconds = (QUICK_ROUNDS, QUICK_SECONDS) if options.quick else (ROUNDS, SECONDS)
    if options.smoke:
        rounds, seconds = 1, 0.1
    bench = Bench(
        programs=options.programs.resolve(),
        numbers=Ports(options.base_port),
        rounds=options.rounds or rounds,
        seconds=options.seconds or seconds,
        smoke=options.smoke,
        quick=options.quick,
        traces=options.traces.resolve() if options.traces else None,
    )
    names = options.case or NAMES
    report: dict[str, Any] = {
        "machine": machine(),
        "rounds": bench.rounds,
        "seconds": bench.seconds,
        "smoke": bench.smoke,
        "cases": [],
        "skipped": [],
    }
    told = report["machine"]
    bench.say(
        f"{told['processor']}, {told['processors']} processors, Linux {told['kernel']};"
        f" servers on {told['server_on'] or 'any'}, generator on {told['generator_on'] or 'any'};"
        f" memcached {told['memcached'] or 'not found'}; {bench.rounds} rounds of {bench.seconds:g} s"
    )
    if sends_singly():
        bench.say(
            "memcached before 1.6.35 sends each reply to a pipelined text get by itself;"
            " its mg, set and multi-get do not"
        )
    run_costs(bench, names, report)
    for name in SPECIAL:
        if name in names:
            try:
                report["cases"].append({"case": name, **bench_special.RUN[name](bench)})
            except Skipped as why:
                skip(bench, report, name, why)
    if options.json:
        options.json.write_text(json.dumps(report, indent=1) + "\n")
        bench.say(f"\nwritten to {options.json}")
    if bench.smoke:
        # What a reader of the JSON relies on.
        again = json.loads(json.dumps(report))
        measured = {case["case"] for case in again["cases"]} | {case["case"] for case in again["skipped"]}
        missing = [name for name in names if name not in measured]
        if missing:
            raise ClusterError(f"no result of {', '.join(missing)}")
    bench.say(f"{len(report['cases'])} cases measured, {len(report['skipped'])} skipped")
    return 0


def main() -> int:
    options = parse()
    if options.list:
        for case in CASES:
            print(f"{case.name:14} {describe(case)}")
        for name, what in SPECIAL.items():
            print(f"{name:14} {what}")
        return 0
    if options.programs is None:
        print("cluster/bench: --programs says where the programs are", file=sys.stderr)
        return 2
    # A closed terminal or a stop from outside ends the servers, too.
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: sys.exit(130))
    try:
        return run(options)
    except (ClusterError, OSError, subprocess.TimeoutExpired, ValueError) as problem:
        print(f"cluster/bench: {problem}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\ncluster/bench: interrupted", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
