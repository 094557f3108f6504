"""The cases of `cluster/bench` that are not processor time: latency, memory, misses, expiry, the store alone."""

from __future__ import annotations

import json
import lzma
import pathlib
import statistics
import subprocess
import tempfile
from typing import Any, Callable

from .bench import CONNECTIONS, Bench, group, spread
from .bench_cases import Skipped
from .bench_servers import Henge, Memcached, has_memcached, resident_bytes
from .bench_servers import statistics as server_statistics
from .nodes import ClusterError
from .workload import DATA

PERCENTILES = ("p50", "p99", "p99.9")
MIB = 1 << 20


# MARK: latency


def latency(bench: Bench) -> dict[str, Any]:
    """Both sides at the same rates: shares of what the slower one answers in a closed loop."""
    load = ["--connections", CONNECTIONS, "--keys", bench.scaled(100_000), "--get-share", 0.9]
    with group(bench, "single") as sides:
        for side in sides:
            bench.generate(side, "fill", "--keys", bench.scaled(100_000), "--depth", 4, watch=False)
        saturation = min(
            bench.generate(side, "closed", *load, "--seconds", bench.seconds)["per_second"] for side in sides
        )
        bench.say(f"\nlatency from the time due, microseconds; saturation {saturation:,.0f} requests a second")
        head = "".join(f" {name + ' Henge/peer':>22}" for name in PERCENTILES)
        bench.say(f"{'load':6}{head} {'ratio of p99.9 (least..greatest)':>34} {'generator late p99':>19}")
        result: dict[str, Any] = {"saturation": saturation, "loads": []}
        for share in (0.25, 0.5, 0.75):
            rounds = []
            for number in range(bench.rounds):
                arguments = [*load, "--rate", saturation * share, "--seconds", bench.seconds, "--seed", number + 1]
                rounds.append([bench.generate(side, "open", *arguments) for side in sides])
            values = {
                name: [statistics.median(done[side]["latency_us"][name] for done in rounds) for side in (0, 1)]
                for name in PERCENTILES
            }
            ratio = spread([ours["latency_us"]["p99.9"] / theirs["latency_us"]["p99.9"] for ours, theirs in rounds])
            late = statistics.median(done["lateness_us"]["p99"] for pair in rounds for done in pair)
            columns = "".join(f" {'%.0f / %.0f' % tuple(values[name]):>22}" for name in PERCENTILES)
            range_text = f"{ratio['median']:.3f} ({ratio['least']:.3f}..{ratio['greatest']:.3f})"
            bench.say(f"{share:4.0%}  {columns} {range_text:>34} {late:19.0f}")
            result["loads"].append(
                {
                    "share": share,
                    "rate": saturation * share,
                    "henge_us": {name: values[name][0] for name in PERCENTILES},
                    "peer_us": {name: values[name][1] for name in PERCENTILES},
                    "ratio_p99.9": ratio,
                    "generator_late_p99_us": late,
                    "rounds": [{"henge": ours, "peer": theirs} for ours, theirs in rounds],
                }
            )
    return result


# MARK: memory

KEY_BYTES = 20
# From a million items on, in steps, since an index that grows by halves costs most just after it grew.
MEMORY_STEPS = [1_000_000, 1_250_000, 1_500_000, 1_750_000, 2_000_000]
MEMORY_VALUES = {"10..100": (42, "values of 10 to 100 bytes"), "lognormal:230:1": (50, "log-normal around 230 bytes")}


def memory(bench: Bench) -> dict[str, Any]:
    """Growth of resident size from the empty server, less keys and values, over items held. Nothing is evicted."""
    bench.say("\nmemory: resident bytes an item beyond key and value, flags 0")
    steps = [bench.scaled(count) for count in (MEMORY_STEPS[:2] if bench.quick or bench.smoke else MEMORY_STEPS)]
    bench.say(f"{'values':28} {'server':10}" + "".join(f" {count:>10,}" for count in steps) + f" {'goal':>6}")
    result: dict[str, Any] = {"steps": steps, "values": []}
    for values, (goal, title) in MEMORY_VALUES.items():
        entry: dict[str, Any] = {"values": values, "goal": goal}
        makers: dict[str, Callable[[], Any]] = {"henge": lambda: Henge(bench.henge, bench.numbers, memory="2G")}
        if has_memcached():
            makers["memcached"] = lambda: Memcached(bench.numbers, megabytes=2048)
        for name, make in makers.items():
            with make() as server:
                entry[name] = [round(value, 2) for value in _overheads(bench, server, values, steps)]
            numbers = "".join(f" {value:10.1f}" for value in entry[name])
            bench.say(f"{title:28} {name:10}{numbers} {goal if name == 'henge' else '-':>6}")
        result["values"].append(entry)
    return result


def _overheads(bench: Bench, server: Any, values: str, steps: list[int]) -> list[float]:
    first, payload, overheads = 0, 0, []
    # Connections and their buffers are there before the first look.
    load = ["--value-size", values, "--key-size", KEY_BYTES, "--connections", 8, "--depth", 16]
    bench.generate(server, "closed", *load, "--keys", 100, "--commands", 20_000, watch=False)
    empty = sum(resident_bytes(pid) for pid in server.pids)
    for count in steps:
        filled = bench.generate(server, "fill", *load, "--first", first, "--keys", count - first, watch=False)
        payload += filled["stored_bytes"] + filled["sets"] * KEY_BYTES
        first = count
        held = int(server_statistics(server.addresses[0])["curr_items"])
        if held != count:
            raise ClusterError(f"{server.name} holds {held} of {count} items: memory for all of them was expected")
        growth = sum(resident_bytes(pid) for pid in server.pids) - empty
        overheads.append((growth - payload) / count)
    return overheads


# MARK: hit ratio


def hit_ratio(bench: Bench) -> dict[str, Any]:
    """Misses at equal growth of resident size: Henge's at its limit, then memcached's, its limit moved to match."""
    if not has_memcached():
        raise Skipped("no memcached")
    bench.say("\nmisses at equal growth of resident size, %; get, and on a miss set")
    bench.say(
        f"{'sequence':12} {'Henge':>7} {'memcached':>10} {'ratio':>6} {'goal':>5} {'growth MiB':>16} {'items held':>20}"
    )
    result: dict[str, Any] = {"sequences": []}
    with tempfile.TemporaryDirectory(prefix="henge-bench-") as place:
        for name, megabytes, goal, arguments in _sequences(bench, pathlib.Path(place)):
            with Henge(bench.henge, bench.numbers, memory=f"{megabytes}M") as henge:
                ours = _replay(bench, henge, arguments)
            theirs = _matched(bench, arguments, ours["growth"], megabytes)
            ratio = ours["miss_ratio"] / theirs["miss_ratio"] if theirs["miss_ratio"] else float("nan")
            result["sequences"].append(
                {"name": name, "megabytes": megabytes, "henge": ours, "memcached": theirs, "ratio": ratio, "goal": goal}
            )
            growth = f"{ours['growth'] / MIB:.1f} / {theirs['growth'] / MIB:.1f}"
            held = f"{ours['items']:,} / {theirs['items']:,}"
            bench.say(
                f"{name + ' ' + str(megabytes) + 'M':12} {100 * ours['miss_ratio']:7.2f}"
                f" {100 * theirs['miss_ratio']:10.2f} {ratio:6.3f} {goal:5.2f} {growth:>16} {held:>20}"
            )
        if bench.traces is None:
            bench.say("T1 left out: --traces DIR says where w106.trace.xz and w106-sizes.u32.xz are")
    return result


def _sequences(bench: Bench, place: pathlib.Path) -> list[tuple[str, int, float, list[object]]]:
    """Name, memory, the most that the ratio may be, and the generator's arguments."""
    found: list[tuple[str, int, float, list[object]]] = []
    recorded = _recorded(bench, place)
    if recorded is not None:
        found += [("T1", 32, 0.75, recorded), ("T1", 64, 0.92, recorded)]
    drawn = bench.scaled(1_500_000 if bench.quick else 4_000_000)
    sizes = ["--size-table", DATA / "value-sizes.tsv", "--size-cap", 200_000]
    popular = ["--popularity", DATA / "key-popularity.tsv", "--divisor", 12, "--requests", drawn, *sizes]
    zipf = ["--zipf", 1.0, "--keys", 600_000, "--once-share", 0.06, "--value-size", "lognormal:230:1:20000"]
    if bench.smoke:
        return [*found[:1], ("T2", 64, 0.82, popular)]
    return [*found, ("T2", 64, 0.82, popular), ("T3", 64, 0.90, [*zipf, "--requests", drawn])]


def _recorded(bench: Bench, place: pathlib.Path) -> list[object] | None:
    """Arguments that name T1, unpacked into a directory; None where it is not there."""
    if bench.traces is None:
        return None
    for packed in ("w106.trace.xz", "w106-sizes.u32.xz"):
        (place / packed.removesuffix(".xz")).write_bytes(lzma.decompress((bench.traces / packed).read_bytes()))
    recorded: list[object] = ["--trace", place / "w106.trace", "--sizes", place / "w106-sizes.u32"]
    if bench.quick or bench.smoke:
        recorded += ["--requests", bench.scaled(1_500_000)]
    return recorded


def _replay(bench: Bench, server: Any, arguments: list[object], wire: str = "text") -> dict[str, Any]:
    # The same connection buffers are there before and after.
    bench.generate(server, "closed", "--connections", 1, "--keys", 100, "--commands", 5_000, watch=False)
    empty = sum(resident_bytes(pid) for pid in server.pids)
    load = ["--depth", 32, "--key-size", KEY_BYTES, "--wire", wire, "--tolerate-refusals"]
    done = bench.generate(server, "replay", *load, *arguments, watch=False)
    return {
        "miss_ratio": done["misses"] / done["gets"],
        "requests": done["gets"],
        "refusals": done["refusals"],
        "growth": sum(resident_bytes(pid) for pid in server.pids) - empty,
        "items": int(server_statistics(server.addresses[0])["curr_items"]),
    }


def _matched(bench: Bench, arguments: list[object], growth: int, megabytes: int) -> dict[str, Any]:
    """memcached's figures at the limit where it grows as much as Henge did, to a megabyte, in three tries at most."""
    limit, best = megabytes, None
    for _ in range(1 if bench.smoke or bench.quick else 3):
        with Memcached(bench.numbers, megabytes=limit) as server:
            # By mg, which changes the order of use as get does and is several times faster there when pipelined.
            done = _replay(bench, server, arguments, wire="meta")
        done["limit_megabytes"] = limit
        if best is None or abs(done["growth"] - growth) < abs(best["growth"] - growth):
            best = done
        step = round((growth - done["growth"]) / MIB)
        if step == 0 or limit + step < 2:
            break
        limit += step
    assert best is not None
    return best


# MARK: promoted


def promoted(bench: Bench) -> dict[str, Any]:
    """What a copy that took over would have of its holder's hits: T1 on the shards of two nodes, in-process."""
    result: dict[str, Any] = {"sequences": []}
    with tempfile.TemporaryDirectory(prefix="henge-bench-") as place:
        recorded = _recorded(bench, pathlib.Path(place))
        if recorded is None:
            raise Skipped("--traces DIR says where w106.trace.xz and w106-sizes.u32.xz are")
        bench.say("\nof its holder's hits a copy has, from the first eviction on; in the worst tenth of the sequence")
        bench.say(f"{'sequence':12} {'hints':>7} {'worst':>7} {'without':>8} {'worst':>7} {'goal':>5} {'hashes told':>12}")
        for megabytes in (32, 64):
            shards = max(1, megabytes // 16)
            done = _store_bench(bench, "promoted", "--memory-mib", megabytes, "--shards", shards, *recorded)
            entry = {"name": "T1", "megabytes": megabytes, "goal": 0.95, **done}
            result["sequences"].append(entry)
            ours, without = done["hints"], done["no_hints"]
            told = ours["accesses_sent"] / ours["requests"] if ours["requests"] else float("nan")
            bench.say(
                f"{'T1 ' + str(megabytes) + 'M':12} {ours['share']:7.3f} {ours['least_share']:7.3f}"
                f" {without['share']:8.3f} {without['least_share']:7.3f} {0.95:5.2f} {told:12.3f}"
            )
    return result


def _store_bench(bench: Bench, *arguments: object) -> dict[str, Any]:
    """What `henge-store-bench` says."""
    command = [str(bench.programs / "henge-store-bench"), *(str(argument) for argument in arguments), "--json"]
    done = subprocess.run(
        ["setpriv", "--pdeathsig", "KILL", *command],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=3600,
    )
    if done.returncode != 0:
        raise ClusterError(f"henge-store-bench ended with {done.returncode}\n{done.stderr.strip()[-500:]}")
    result: dict[str, Any] = json.loads(done.stdout)
    return result


# MARK: expiry

# Seconds and weights; a day is compressed into minutes. Rate of sets, length of the run.
EXPIRY_MIXES = {"few TTLs": ("10=0.5,25=0.3,60=0.2", 0.05), "evenly spread": ("5..60", 0.10)}
EXPIRY_SECONDS, EXPIRY_RATE = 100, 8_000


def expiry(bench: Bench) -> dict[str, Any]:
    """Items that are expired by what the generator knows, of those that the server still counts as held."""
    bench.say("\nexpired items' share of those held, after all lives have passed once, %; 100-byte values")
    bench.say(f"{'lives':16} {'server':10} {'held':>10} {'alive':>10} {'expired':>8} {'goal':>5}")
    factor = 0.02 if bench.smoke else 0.3 if bench.quick else 1.0
    result: dict[str, Any] = {"mixes": []}
    for title, (mix, goal) in list(EXPIRY_MIXES.items())[: 1 if bench.smoke else None]:
        entry: dict[str, Any] = {"lives": _compressed(mix, factor), "goal": goal}
        makers: dict[str, Callable[[], Any]] = {"henge": lambda: Henge(bench.henge, bench.numbers, memory="256M")}
        if has_memcached():
            makers["memcached"] = lambda: Memcached(bench.numbers, megabytes=256)
        for name, make in makers.items():
            with make() as server:
                count = int(EXPIRY_RATE * max(2, EXPIRY_SECONDS * factor))
                load = ["--keys", count, "--rate", EXPIRY_RATE, "--ttl", entry["lives"], "--connections", 8]
                done = bench.generate(server, "fill", *load, watch=False)
                told = server_statistics(server.addresses[0])
                held, alive = int(told["curr_items"]), done["items_alive"]
                if int(told["evictions"]):
                    raise ClusterError(f"{name} evicted {told['evictions']} items: more memory was expected")
                share = max(0.0, 1 - alive / held) if held else 0.0
                entry[name] = {"held": held, "alive": alive, "expired_share": share}
            aim = f"{100 * goal:.0f}" if name == "henge" else "-"
            bench.say(f"{title:16} {name:10} {held:10,} {alive:10,} {100 * share:8.2f} {aim:>5}")
        result["mixes"].append(entry)
    return result


def _compressed(mix: str, factor: float) -> str:
    """The same mix with its times multiplied, at least a second each."""

    def scale(bounds: str) -> str:
        return "..".join(str(max(1, round(int(part) * factor))) for part in bounds.split(".."))

    shares = [part.partition("=") for part in mix.split(",")]
    return ",".join(scale(bounds) + (f"={weight}" if weight else "") for bounds, _, weight in shares)


# MARK: the store alone


def store(bench: Bench) -> dict[str, Any]:
    """`henge-store-bench`, whose table it prints."""
    arguments: list[object] = []
    if bench.smoke:
        arguments = ["--items", 5000, "--rounds", 1, "--operations", 20_000]
    elif bench.quick:
        arguments = ["--items", 100_000, "--items", 1_000_000, "--rounds", 3, "--operations", 1_000_000]
    bench.say("\nthe store in-process, nanoseconds an operation")
    result = _store_bench(bench, *arguments)
    for line in result["rows"]:
        bench.say(
            f"{line['items']:>12,} {line['operation']:24} {line['median_ns']:10.1f}"
            f" ({line['least_ns']:.1f}..{line['greatest_ns']:.1f})"
        )
    scaling = result["sets_two_workers_over_one"]
    least, median, greatest = (scaling[name] for name in ("least", "median", "greatest"))
    bench.say(f"sets, two workers over one: {median:.2f} ({least:.2f}..{greatest:.2f}), goal 1.80")
    for kind in ("arithmetic", "memory"):
        control = result[f"{kind}_two_threads_over_one"]
        least, median, greatest = (control[name] for name in ("least", "median", "greatest"))
        bench.say(f"{kind} alone, two threads over one: {median:.2f} ({least:.2f}..{greatest:.2f}): what there was to win")
    return result


RUN: dict[str, Callable[[Bench], dict[str, Any]]] = {
    "latency": latency,
    "memory": memory,
    "hit-ratio": hit_ratio,
    "promoted": promoted,
    "expiry": expiry,
    "store": store,
}
