"""`python -m bench`: DFS with three datanodes beside what the machine can do, in one run."""

from __future__ import annotations

import argparse
import itertools
import json
import os
import statistics
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import requests
from rich.console import Console
from rich.table import Table

from bench.load import Address, get_large, put_large, request, run, timed
from bench.machine import file_server, lmdb_commits, lmdb_gets, write_files
from tests.cluster.real_cluster import Cluster

MIB = 1 << 20
ROOT = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class Row:
    """One figure of DFS and of the machine, in the same unit; more is better."""

    name: str
    unit: str
    dfs: float
    machine: float
    beside: str
    cpu: str

    @property
    def ratio(self) -> float:
        return self.dfs / self.machine


class Bench:
    """Measures in turns, so that a drift of the machine hits both sides alike; medians are kept."""

    def __init__(self, cluster: Cluster, folder: Path, server: str, rounds: int) -> None:
        self.cluster = cluster
        self.address = Address.of(cluster.url)
        self.folder = folder
        self.server = server
        self.rounds = rounds
        self.rows: list[Row] = []
        self._numbers = itertools.count()

    def fresh(self, name: str) -> str:
        """A name that was not used before."""
        return f"{name}{next(self._numbers)}"

    def measure(
        self, name: str, unit: str, amount: float, dfs: Callable[[], float], machine: Callable[[], float], beside: str
    ) -> None:
        """`dfs` and `machine` return seconds for the same `amount`."""
        pairs = []
        before = self._cpu()
        for _ in range(self.rounds):
            pairs.append((amount / dfs(), amount / machine()))
        spent = {key: (value - before[key]) / self.rounds for key, value in self._cpu().items()}
        row = Row(
            name,
            unit,
            statistics.median(pair[0] for pair in pairs),
            statistics.median(pair[1] for pair in pairs),
            beside,
            f"{spent['namenode']:.2f} / {spent['datanodes']:.2f}",
        )
        self.rows.append(row)
        print(f"{row.name}: {row.dfs:,.0f} {unit}, {row.beside}: {row.machine:,.0f}", flush=True)

    def _cpu(self) -> dict[str, float]:
        """CPU seconds of the servers so far."""
        return {
            "namenode": _cpu_seconds(self.cluster.namenode.pid),
            "datanodes": sum(_cpu_seconds(datanode.pid) for datanode in self.cluster.datanodes),
        }


def _cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def large_files(bench: Bench, mib: int) -> None:
    """Both sides write under new names and delete what they wrote before: memory that was never touched, or
    was just freed, makes a large difference to both alike."""
    block = os.urandom(MIB)
    size = mib * MIB
    last = ""
    plain: list[str] = []

    def put() -> float:
        nonlocal last
        if last:
            requests.delete(f"{bench.cluster.url}fs/{last}", timeout=60)
        last = bench.fresh("large")
        return put_large(bench.address, f"/fs/{last}", block, mib)

    def three_files() -> float:
        for name in plain:
            (bench.folder / name).unlink()
        plain[:] = [bench.fresh("plain") for _ in range(3)]
        return timed(lambda: write_files(bench.folder, plain, block, mib))

    bench.measure(f"PUT {mib} MiB", "MB/s", size / 1e6, put, three_files, "three plain files, one by one")

    def get() -> float:
        url = requests.get(f"{bench.cluster.url}fs/{last}?redirect=false", timeout=60).json()["location"]
        return get_large(url, size)

    bench.measure(
        f"GET {mib} MiB",
        "MB/s",
        size / 1e6,
        get,
        lambda: get_large(f"{bench.server}/{plain[0]}", size),
        "bare FileResponse",
    )


def small_files(bench: Bench, files: int) -> None:
    body = os.urandom(4096)
    write_files(bench.folder, [f"small{n}" for n in range(files)], body, 1)
    address = Address.of(bench.server)

    def write_three_each() -> None:
        for _ in range(files // 10):
            write_files(bench.folder, ["x", "y", "z"], body, 1)

    def three_files_each() -> float:
        return timed(write_three_each) * 10

    for clients in (1, 16):
        names: list[str] = []

        def put(clients: int = clients, names: list[str] = names) -> float:
            names[:] = [bench.fresh("s") for _ in range(files)]
            return run(bench.address, [request("PUT", f"/fs/{name}", body) for name in names], clients)

        def get(clients: int = clients, names: list[str] = names) -> float:
            return run(bench.address, [request("GET", f"/fs/{name}") for name in names], clients)

        def bare(clients: int = clients) -> float:
            return run(address, [request("GET", f"/small{n}") for n in range(files)], clients)

        who = f"{clients} client" + "s" * (clients > 1)
        bench.measure(f"PUT 4 KiB, {who}", "files/s", files, put, three_files_each, "three plain files, one by one")
        bench.measure(f"GET 4 KiB, {who}", "files/s", files, get, bare, "bare FileResponse, no redirect")


def metadata(bench: Bench, count: int) -> None:
    folder = bench.folder / "lmdb"
    names: list[str] = []

    def commits(group: int) -> Callable[[], float]:
        return lambda: timed(lambda: lmdb_commits(folder, count // 2 // group, group)) * 2

    def stat(clients: int) -> float:
        return run(bench.address, [request("HEAD", f"/fs/{n}") for n in names * 4], clients)

    def mkdir(clients: int) -> float:
        names[:] = [bench.fresh("d") for _ in range(count)]
        return run(bench.address, [request("POST", f"/fs/{n}?op=mkdir", b"") for n in names], clients)

    def rename(clients: int) -> float:
        to = [bench.fresh("r") for _ in names]
        messages = [request("POST", f"/fs/{old}?op=rename&to=/{new}", b"") for old, new in zip(names, to, strict=True)]
        names[:] = to
        return run(bench.address, messages, clients)

    for clients in (1, 16):
        who = f"{clients} client" + "s" * (clients > 1)
        beside = f"raw LMDB commits of {clients}"
        bench.measure(f"mkdir, {who}", "/s", count, partial(mkdir, clients), commits(clients), beside)
        bench.measure(f"rename, {who}", "/s", count, partial(rename, clients), commits(clients), beside)
        bench.measure(
            f"stat, {who}",
            "/s",
            count * 4,
            partial(stat, clients),
            lambda: timed(lambda: lmdb_gets(folder, count * 4)),
            "raw LMDB reads",
        )


def listing(bench: Bench, entries: int) -> None:
    directory = bench.fresh("list")
    messages = [request("POST", f"/fs/{directory}/{n}?op=mkdir&parents=true", b"") for n in range(entries)]
    run(bench.address, messages, 16)
    plain = bench.folder / "entries"
    plain.mkdir()
    for number in range(entries):
        (plain / str(number)).touch()

    def local() -> list[os.stat_result]:
        with os.scandir(plain) as found:
            return [entry.stat() for entry in found]

    bench.measure(
        f"list {entries:,} entries",
        "entries/s",
        entries,
        lambda: timed(lambda: requests.get(f"{bench.cluster.url}fs/{directory}", timeout=60).content),
        lambda: timed(local),
        "scandir and stat of a plain folder",
    )


def table(rows: list[Row]) -> Table:
    made = Table("what", "unit", "DFS", "machine", "ratio", "beside", "CPU s, name / data")
    for row in rows:
        made.add_row(
            row.name, row.unit, f"{row.dfs:,.0f}", f"{row.machine:,.0f}", f"{row.ratio:.2f}", row.beside, row.cpu
        )
    return made


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--mib", type=int, default=1024, help="size of the large file (default: 1024)")
    parser.add_argument("--files", type=int, default=2000, help="number of small files (default: 2000)")
    parser.add_argument("--entries", type=int, default=10_000, help="entries of the listed directory")
    parser.add_argument("--rounds", type=int, default=3, help="of each measurement; medians are shown")
    parser.add_argument("--only", choices=["large", "small", "metadata", "listing"], help="one group of rows")
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    parser.add_argument("--folder", type=Path, default=ROOT, help="where the data goes: the disk that is measured")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="bench-", dir=args.folder) as name:
        folder = Path(name)
        plain = folder / "plain"
        plain.mkdir()
        cluster = Cluster(folder, 3, DFS_GARBAGE_DELAY="0.1")
        try:
            cluster.start()
            with file_server(plain) as server:
                bench = Bench(cluster, plain, server, args.rounds)
                groups = {
                    "large": lambda: large_files(bench, args.mib),
                    "small": lambda: small_files(bench, args.files),
                    "metadata": lambda: metadata(bench, args.files),
                    "listing": lambda: listing(bench, args.entries),
                }
                for name in [args.only] if args.only else groups:
                    groups[name]()
        finally:
            cluster.stop()
    Console(width=140).print(table(bench.rows))
    if args.json:
        args.json.write_text(json.dumps([asdict(row) | {"ratio": row.ratio} for row in bench.rows], indent=1))


if __name__ == "__main__":
    main()
