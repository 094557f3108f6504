"""Cluster keys: who is let in, what strangers and captured packets change, and a rotation under load."""

from __future__ import annotations

import dataclasses
import json
import pathlib
import re
import socket
import struct
import subprocess
import tempfile
import time

import support
from harness import load, nodes, ports
from harness.checker import Checker
from support import BOTH, ClusterTest, reports

ETH_P_IP = 0x0800
SO_RCVBUFFORCE = 33


@dataclasses.dataclass
class Packet:
    source: tuple[str, int]
    target: tuple[str, int]
    payload: bytes


def checksum(data: bytes) -> int:
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    total = (total & 0xFFFF) + (total >> 16)
    return ~(total + (total >> 16)) & 0xFFFF


class Tap:
    """Sees the UDP packets of the loopback device, and sends them again under their senders' addresses."""

    def __init__(self) -> None:
        self._in = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(ETH_P_IP))
        self._in.bind(("lo", ETH_P_IP))
        self._in.setblocking(False)
        # Links use the device as well, and nothing of gossip may be lost for it.
        self._in.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, 64 << 20)
        self._out = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)

    def close(self) -> None:
        self._in.close()
        self._out.close()

    def take(self, ports: set[int]) -> list[Packet]:
        """The packets to one of the ports that came since the last time."""
        found = []
        while True:
            try:
                # A packet on loopback is seen twice, as it leaves and as it arrives.
                data, (_, _, kind, _, _) = self._in.recvfrom(65536)
            except BlockingIOError:
                return found
            if kind == socket.PACKET_OUTGOING or data[9] != socket.IPPROTO_UDP:
                continue
            head = (data[0] & 15) * 4
            source, target, length = struct.unpack("!HHH", data[head : head + 6])
            if target in ports:
                hosts = socket.inet_ntoa(data[12:16]), socket.inet_ntoa(data[16:20])
                found.append(Packet((hosts[0], source), (hosts[1], target), data[head + 8 : head + length]))

    def send(self, packet: Packet) -> None:
        udp = struct.pack("!HHHH", packet.source[1], packet.target[1], 8 + len(packet.payload), 0) + packet.payload
        addresses = socket.inet_aton(packet.source[0]) + socket.inet_aton(packet.target[0])
        head = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(udp), 0, 0, 64, socket.IPPROTO_UDP, 0) + addresses
        head = head[:10] + struct.pack("!H", checksum(head)) + head[12:]
        self._out.sendto(head + udp, packet.target)


class KeysTest(ClusterTest):
    def key_file(self) -> str:
        directory = tempfile.TemporaryDirectory(prefix="henge-key-")
        self.addCleanup(directory.cleanup)
        return str(nodes.generate_key(support.henge, pathlib.Path(directory.name, "cluster.key")))

    def sealed(self, count: int = 3, **options) -> nodes.Cluster:
        self.key = self.key_file()
        return self.cluster(count, arguments=("--cluster-key-file", self.key), **options)

    def refused(self, cluster: nodes.Cluster, name: str, kind: str) -> dict[str, int]:
        """Counts of what a node refused, by cause; zeros left out."""
        text = nodes.http_get(cluster.node(name).admin, "/metrics")[1]
        pattern = rf'henge_sealing_refused_total{{kind="{kind}",cause="([a-z-]+)"}} (\d+)'
        return {cause: int(count) for cause, count in re.findall(pattern, text) if count != "0"}

    def keyring(self, cluster: nodes.Cluster, *arguments: str, via: str = "n1") -> dict:
        done = cluster.run("keyring", *arguments, "-o", "json", via=via)
        self.assertEqual(done.returncode, 0, done.stderr)
        return json.loads(done.stdout)

    def picture(self, cluster: nodes.Cluster, names: list[str]) -> dict[str, object]:
        """What must not change: each node's ring and members, and what befell them."""
        seen: dict[str, object] = {}
        for name in names:
            status = cluster.status(name)
            events = json.loads(cluster.run("events", "-o", "json", via=name).stdout)["events"]
            members = sorted((m["name"], m["generation"], m["lifecycle"], m["liveness"]) for m in status["members"])
            seen[name] = (status["ring"]["hash"], members, len(events))
        return seen

    def test_a_rotation_over_five_nodes_under_load(self) -> None:
        cluster = self.sealed(5)
        keys = [f"rotation:{index}" for index in range(10_000)]
        checker = Checker(keys)
        load.fill(checker, self.addresses(cluster), keys, seed=support.seed)
        names = [node.name for node in cluster.nodes]
        before = {name: cluster.status(name)["ring"]["hash"] for name in names}
        rotations = 3
        with load.Load(self.addresses(cluster), keys, checker, seed=support.seed, libraries=BOTH) as running:
            for _ in range(rotations):
                old = self.keyring(cluster, "list")["keys"]
                done = cluster.run("keyring", "rotate", via="n2")
                self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
                new = self.keyring(cluster, "list")["keys"]
                self.assertEqual((len(new), new != old), (1, True), (old, new))
                running.progress(3_000)
        self.report(running.counts, checker, f"{rotations} rotations")
        self.assertEqual(running.broken, [])
        self.assertEqual(running.counts.errors, 0, running.trouble)
        self.assert_true_to(checker, cluster)
        last = load.sweep(checker, self.addresses(cluster), keys)
        self.report(last, checker, "every key through every node")
        self.assert_true_to(checker, cluster)
        for name in names:
            self.assertEqual(cluster.status(name)["ring"]["hash"], before[name])
            events = json.loads(cluster.run("events", "-o", "json", via=name).stdout)["events"]
            bad = [event for event in events if event["type"] in ("suspected", "down", "left", "forgotten")]
            self.assertEqual(bad, [], f"{name} saw a member go")
            self.assertEqual(sum(event["type"] == "keys-changed" for event in events), 3 * rotations)
            # Whoever seals with a key a moment before another has it is refused for that moment at most.
            self.assertLessEqual(sum(self.refused(cluster, name, "packet").values()), 20)
            # Links go over to the new key; none has to be made again.
            self.assertNotIn("out of sync", cluster.node(name).log.read_text())

    def test_sixteen_idle_nodes_send_at_most_half_a_kilobyte_a_second_each(self) -> None:
        cluster = self.sealed(16, memory="16M")
        tap = Tap()
        self.addCleanup(tap.close)
        targets = {node.cluster[1] for node in cluster.nodes}
        seconds = 20.0
        sent: dict[int, int] = {}
        start = time.monotonic()
        tap.take(targets)
        running = support.deadline(seconds)
        while not running():
            for packet in tap.take(targets):
                self.assertEqual(packet.payload[:2], b"HS")
                # With the headers of IPv4 and UDP.
                sent[packet.source[1]] = sent.get(packet.source[1], 0) + len(packet.payload) + 28
            time.sleep(0.02)
        rates = sorted(count / (time.monotonic() - start) for count in sent.values())
        reports.append(f"bytes a second: median {rates[8]:.0f}, most {rates[-1]:.0f}")
        self.assertEqual(len(rates), 16)
        self.assertLessEqual(rates[8], 512)

    def test_strangers_change_nothing_and_are_counted(self) -> None:
        cluster = self.sealed()
        names = [node.name for node in cluster.nodes]
        before = self.picture(cluster, names)
        seeds = ",".join(node.cluster_address for node in cluster.nodes)
        for arguments, packet, connection in (
            (("--cluster-key-file", self.key_file()), "unknown-key", None),
            ((), "plain", None),
            (("--cluster-key-file", self.key, "--cluster-name", "other"), "foreign-cluster", None),
        ):
            with self.subTest(arguments=arguments):
                stranger = self.cluster(1, start=False, seeds=False, arguments=("--seeds", seeds, *arguments))
                stranger.start_all()
                nodes.poll(
                    f"{packet} counted at all nodes",
                    time.monotonic() + 20,
                    lambda: all(self.refused(cluster, name, "packet").get(packet, 0) >= 3 for name in names),
                )
                self.assertEqual(nodes.http_get(stranger.node("n1").admin, "/readyz")[0], 503)
                self.assertEqual(len(stranger.status("n1")["members"]), 1)
                log = cluster.node("n1").log.read_text()
                self.assertEqual(len(re.findall(f"refused packets or calls.*cause={packet}", log)), 1, log[-2000:])
                stranger.close()
        # A plain call, and one that is no member's.
        for bytes, cause in ((b"\x05\x00\x00\x00\x01hello", "plain"), (b"HL\x07" + b"\xff" * 80, "malformed")):
            with socket.create_connection(cluster.node("n1").cluster, timeout=5) as call:
                call.sendall(bytes)
                call.settimeout(5)
                self.assertEqual(call.recv(1), b"", "the call was not ended")
            self.assertGreaterEqual(self.refused(cluster, "n1", "connection").get(cause, 0), 1)
        self.assertEqual(self.picture(cluster, names), before)

    def test_a_node_without_a_key_says_who_seals(self) -> None:
        sealed = self.sealed(1)
        seed = sealed.node("n1").cluster_address
        plain = self.cluster(1, start=False, seeds=False, arguments=("--seeds", seed))
        plain.start_all()
        # The sealed one does not call back; it is told of the plain one as of a seed.
        other = self.cluster(
            1,
            start=False,
            seeds=False,
            arguments=("--cluster-key-file", self.key, "--seeds", plain.node("n1").cluster_address),
        )
        other.start_all()
        nodes.poll(
            "a line about sealed packets",
            time.monotonic() + 20,
            lambda: "cause=sealed" in plain.node("n1").log.read_text(),
        )

    def test_a_replayed_capture_changes_nothing_and_is_counted(self) -> None:
        cluster = self.sealed()
        names = [node.name for node in cluster.nodes]
        targets = {node.cluster[1] for node in cluster.nodes}
        tap = Tap()
        self.addCleanup(tap.close)
        captured: list[Packet] = []

        def enough() -> bool:
            captured.extend(tap.take(targets))
            return len(captured) >= 60

        # Among them a whole story of n3: it leaves, comes back in another generation, and is probed.
        cluster.stop("n3")
        enough()
        cluster.start("n3")
        cluster.wait_ready()
        cluster.wait_settled()
        nodes.poll("60 captured packets", time.monotonic() + 30, enough)
        for packet in captured:
            self.assertEqual(packet.payload[:2], b"HS", "a packet that is not sealed")
        before = self.picture(cluster, names)
        refused = sum(sum(self.refused(cluster, name, "packet").values()) for name in names)
        for packet in captured:
            tap.send(packet)

        def counted() -> bool:
            now = sum(sum(self.refused(cluster, name, "packet").values()) for name in names)
            return now - refused >= len(captured) * 8 // 10

        # Hellos to a start that has no session with the sender are answered; they change nothing either.
        nodes.poll(f"{len(captured)} replayed packets refused", time.monotonic() + 10, counted)
        causes = {cause for name in names for cause in self.refused(cluster, name, "packet")}
        self.assertIn("replayed", causes)
        self.assertEqual(self.picture(cluster, names), before)
        # A node that has just started remembers nothing, and takes nothing all the same.
        cluster.kill("n1")
        cluster.start("n1")
        cluster.wait_ready()
        cluster.wait_settled()
        before = self.picture(cluster, names)
        for packet in captured:
            tap.send(packet)
        nodes.poll(
            "replayed packets refused after a restart",
            time.monotonic() + 10,
            lambda: self.refused(cluster, "n1", "packet").get("outdated", 0) >= 10,
        )
        self.assertEqual(self.picture(cluster, names), before)
        reports.append(f"{len(captured)} packets replayed twice; refused: {self.refused(cluster, 'n1', 'packet')}")

    def test_a_node_that_was_down_finds_back_after_a_rotation(self) -> None:
        cluster = self.sealed()
        old = self.keyring(cluster, "list")["keys"][0]
        cluster.kill("n3")
        nodes.poll(
            "n3 down",
            time.monotonic() + 20,
            lambda: next(m for m in cluster.status("n1")["members"] if m["name"] == "n3")["liveness"] == "down",
        )
        done = cluster.run("keyring", "rotate", via="n1")
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        self.assertIn(f"key {old} stays: n3", done.stdout)
        self.assertIn("lacking: n3 (down)", done.stdout)
        new = self.keyring(cluster, "list")["keys"][0]
        self.assertNotEqual(new, old)
        refusal = cluster.run("keyring", "remove", old, via="n1")
        self.assertEqual(refusal.returncode, 4, refusal.stdout + refusal.stderr)
        self.assertIn("n3 (down)", refusal.stderr)
        cluster.start("n3")
        cluster.wait_ready()
        cluster.wait_settled()

        def all_have_it() -> bool:
            return all(member["keys"][0] == new for member in self.keyring(cluster, "list")["members"])

        nodes.poll("n3 seals with the new key", time.monotonic() + 10, all_have_it)
        self.keyring(cluster, "remove", old)
        nodes.poll(
            "the old key gone everywhere",
            time.monotonic() + 10,
            lambda: all(self.keyring(cluster, "list", via=node.name)["keys"] == [new] for node in cluster.nodes),
        )
        # The file of the settings is older than the ring on disk, and says so.
        self.assertEqual(cluster.stop("n2"), 0)
        cluster.start("n2")
        cluster.wait_settled()
        self.assertIn("the key of --cluster-key-file is not in the node's key ring", cluster.node("n2").log.read_text())

    def test_an_operators_mistakes_are_named(self) -> None:
        cluster = self.sealed(1)
        key = self.keyring(cluster, "list")["keys"][0]
        for arguments, code, words in (
            (("remove", key), 4, "use another first"),
            (("use", "12345678"), 4, "no key 12345678"),
            (("use", "xyz"), 4, "is no key's id"),
            (("install", "/nowhere"), 2, "/nowhere"),
            (("install", __file__), 2, "larger than"),
        ):
            done = cluster.run("keyring", *arguments, via="n1")
            self.assertEqual(done.returncode, code, done.stdout + done.stderr)
            self.assertIn(words, done.stderr)
        plain = self.cluster(1)
        done = plain.run("keyring", "list", via="n1")
        self.assertEqual(done.returncode, 4)
        self.assertIn("--cluster-key-file", done.stderr)

    def test_without_a_key_nobody_beyond_loopback_is_listened_to(self) -> None:
        directory = tempfile.mkdtemp(prefix="henge-open-")
        self.addCleanup(subprocess.run, ["rm", "-r", directory])
        common = ("--data-dir", f"{directory}/d", "--listen", "127.0.0.1:%d" % ports.free(1)[0])
        wide = self.serve(*common, "--cluster", "0.0.0.0:11212", "--seeds", "192.0.2.1")
        self.assertEqual(wide.returncode, 2, wide.stderr)
        self.assertIn("--cluster-key-file", wide.stderr)
        self.assertIn("--insecure", wide.stderr)
        bad = pathlib.Path(directory, "key")
        bad.write_text("short\n")
        done = self.serve(*common, "--cluster-key-file", str(bad))
        self.assertEqual(done.returncode, 2, done.stderr)
        self.assertIn("32 bytes in base64", done.stderr)
        missing = self.serve(*common, "--cluster-key-file", str(bad) + "x")
        self.assertEqual(missing.returncode, 2, missing.stderr)
        self.assertIn(str(bad) + "x", missing.stderr)

        for extra, host, line in (
            ((), "127.0.0.1", "other nodes are listened to on loopback only"),
            (("--insecure",), "0.0.0.0", "nodes talk in the clear"),
        ):
            cluster = self.cluster(1, start=False, seeds=False, arguments=extra)
            node = cluster.nodes[0]
            node.cluster = ("0.0.0.0", node.cluster[1])
            cluster.start_all()
            cluster.wait_ready()
            self.assertEqual(node.log.read_text().count(line), 1, node.log.read_text())
            listening = pathlib.Path("/proc/net/udp").read_text()
            wanted = "%08X:%04X" % (struct.unpack("=I", socket.inet_aton(host))[0], node.cluster[1])
            self.assertIn(wanted, listening)
            cluster.close()
