"""One process: how it starts, refuses to start, says what it waits for, and ends."""

from __future__ import annotations

import pathlib
import socket
import tempfile
import time

from harness import nodes, ports
from support import ClusterTest


class ProcessTest(ClusterTest):
    def test_a_node_without_seeds_is_ready_at_once_and_SIGTERM_ends_it_with_0(self) -> None:
        cluster = self.cluster(1, start=False, seeds=False)
        cluster.start_all()
        cluster.wait_ready(timeout=5)
        session = self.session(cluster)
        session.do(lambda connection: connection.set("k", b"v"))
        self.assertEqual(session.do(lambda connection: connection.get("k"))[0], b"v")
        self.assertEqual(cluster.stop("n1"), 0)

    def test_SIGTERM_to_each_of_three_nodes_ends_it_with_0(self) -> None:
        cluster = self.cluster()
        for node in cluster.nodes:
            self.assertEqual(cluster.stop(node.name), 0, cluster.log_tail(node.name))

    def test_an_unknown_flag_is_one_line_and_exit_2(self) -> None:
        self.assert_one_line_and_2(self.serve("--no-such-flag"), "--no-such-flag")

    def test_an_unreadable_value_is_one_line_and_exit_2(self) -> None:
        self.assert_one_line_and_2(self.serve("--memory", "banana"), "--memory")

    def test_an_unreadable_settings_file_is_one_line_and_exit_2(self) -> None:
        self.assert_one_line_and_2(self.serve("--config", "/nowhere/henge.toml"), "/nowhere/henge.toml")

    def test_an_unknown_setting_is_one_line_with_a_suggestion_and_exit_2(self) -> None:
        with tempfile.TemporaryDirectory() as directory:
            file = pathlib.Path(directory, "n1.toml")
            file.write_text("[cluster]\nreplica = 1\n")
            self.assert_one_line_and_2(self.serve("--config", str(file)), "replica", "did you mean 'replicas'")

    def test_a_port_in_use_is_one_line_and_exit_2(self) -> None:
        for which in ("client", "cluster", "admin"):
            with self.subTest(port=which):
                cluster = self.cluster(1, start=False, seeds=False)
                node = cluster.nodes[0]
                taken = getattr(node, which)
                with socket.create_server(taken):
                    node.data.mkdir(parents=True)
                    self.assert_one_line_and_2(self.serve(*cluster.command(node)[2:]), str(taken[1]))

    def test_a_node_whose_seeds_are_silent_is_not_ready_and_says_so_until_they_come(self) -> None:
        cluster = self.cluster(3, start=False)
        node = cluster.start("n1")
        deadline = time.monotonic() + 10
        nodes.poll("livez", deadline, lambda: nodes.http_get(node.admin, "/livez")[0] == 200)
        alone = time.monotonic() + 3
        while time.monotonic() < alone:
            self.assertEqual(nodes.http_get(node.admin, "/readyz")[0], 503)
            with self.assertRaises(OSError, msg="the client port opens when the node may serve"):
                socket.create_connection(node.client, timeout=1).close()
            time.sleep(0.1)
        self.assertIn("seed", node.log.read_text().lower())
        cluster.start("n2")
        cluster.start("n3")
        cluster.wait_ready()
        cluster.wait_settled()

    def test_more_connections_than_allowed_are_told_so(self) -> None:
        cluster = self.cluster(1, start=False, seeds=False, arguments=("--max-connections", "10"))
        cluster.start_all()
        cluster.wait_ready()
        address = cluster.nodes[0].client
        connections = [socket.create_connection(address, timeout=5) for _ in range(10)]
        try:
            for connection in connections:
                connection.sendall(b"version\r\n")
                self.assertEqual(connection.recv(100), b"VERSION 1.6.45\r\n")
            with socket.create_connection(address, timeout=5) as one_more:
                answer = b""
                while part := one_more.recv(100):
                    answer += part
                self.assertEqual(answer, b"ERROR Too many open connections\r\n")
        finally:
            for connection in connections:
                connection.close()
        # A place that is left is given again.
        deadline = time.monotonic() + 5

        def served() -> bool:
            with socket.create_connection(address, timeout=5) as again:
                again.sendall(b"version\r\n")
                return again.recv(100) == b"VERSION 1.6.45\r\n"

        nodes.poll("a place for a connection", deadline, served)

    def test_the_admin_port_speaks_HTTP(self) -> None:
        cluster = self.cluster(1, start=False, seeds=False)
        cluster.start_all()
        cluster.wait_ready()
        admin = cluster.nodes[0].admin
        self.assertEqual(nodes.http_get(admin, "/livez")[0], 200)
        self.assertEqual(nodes.http_get(admin, "/readyz")[0], 200)
        code, metrics = nodes.http_get(admin, "/metrics")
        self.assertEqual(code, 200)
        self.assertIn("henge_", metrics)
        self.assertEqual(nodes.http_get(admin, "/nothing/here")[0], 404)

    def test_a_command_to_a_node_that_is_not_there_fails(self) -> None:
        cluster = self.cluster(1, start=False, seeds=False)
        port = ports.free(1)[0]
        cluster.nodes[0].admin = ("127.0.0.1", port)
        done = cluster.run("status", "-o", "json", via="n1")
        self.assertEqual(done.returncode, 5)
        self.assertIn(str(port), done.stderr)
