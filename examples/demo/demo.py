#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The main job of Weft, end to end: what ./demo runs.

Two nodes, and tinylm engines on them. Real prompts go through prefill on one node; each layer's KV
blocks are handed to decode on the other while prefill still computes the next. Then the same again
(prefixes hit the cache), with sampling, and inside one node (blocks change hands by reference).
Every token must be the one that a single process gives. Last, a request trace is replayed through
both nodes with real bytes, each of them checked.

The nodes meet over shared memory, or over a network (--transport verbs, ucx, tcp): on one host, or
on two, of which the second runs with --serve and does what the first one asks for. With --etcd they
find each other there, as members of one cluster, which may have others.
"""
import argparse
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time

HERE = os.path.dirname(os.path.abspath(__file__))
STARTED = time.monotonic()
LOOPBACK, NODE_PORT, SERVE_PORT = "127.0.0.1", 7470, 7480
# what the first host may ask the second for: these, and no program of its own choice
OPTIONS = ("--size", "--max-tokens", "--seed", "--temperature", "--sample-seed")


def say(text):
    print(f"[{time.monotonic() - STARTED:6.1f} s] {text}", flush=True)


class Failure(Exception):
    """what went wrong, in a sentence"""


class Stop:
    """a signal says to stop; not while a process starts that nobody knows of yet"""

    starting = 0
    number = 0

    @classmethod
    def signalled(cls, number, _frame):
        # once: nothing cuts the tidying up short
        for other in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(other, signal.SIG_IGN)
        cls.number = number
        if not cls.starting:
            cls.check()

    @classmethod
    def check(cls):
        if cls.number and threading.current_thread() is threading.main_thread():
            raise Failure(f"stopped by {signal.Signals(cls.number).name}")


class Lines:
    """somebody who is spoken to in JSON lines"""

    def __init__(self, what, to, back):
        self.what = what
        self.to = to
        self.back = back

    def say(self, message):
        try:
            self.to.write(json.dumps(message) + "\n")
            self.to.flush()
        except OSError:
            raise Failure(f"{self.what} has ended") from None

    def hear(self):
        line = self.back.readline()
        if not line:
            raise Failure(f"{self.what} ended without an answer")
        answer = json.loads(line)
        if "error" in answer:
            raise Failure(f"{self.what}: request {answer.get('id')}: {answer['error']}")
        return answer


class Engine(Lines):
    """a tinylm of this host"""

    def __init__(self, demo, role, node, *options):
        command = [demo.tool("examples/tinylm/tinylm"), "--role", role, *options]
        if node:
            command += ["--socket", demo.sockets[node]]
        self.process = demo.start(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                  text=True)
        super().__init__(f"tinylm --role {role}", self.process.stdin, self.process.stdout)

    def end(self):
        self.to.close()
        if self.process.wait(timeout=60):
            raise Failure(f"{self.what} ended with status {self.process.returncode}")


class Far(Lines):
    """the demo on the second host: one connection for each thing that it is asked for"""

    def __init__(self, host, **wish):
        deadline = time.monotonic() + 60
        while True:
            try:
                self.link = socket.create_connection((host, SERVE_PORT), timeout=60)
                break
            except OSError as error:
                if time.monotonic() > deadline:
                    raise Failure(f"no demo --serve answers on {host}: {error}") from None
                time.sleep(0.2)
        super().__init__(f"{' '.join(wish)} on {host}", self.link.makefile("w"),
                         self.link.makefile("r"))
        self.say(wish)

    def end(self):
        self.link.shutdown(socket.SHUT_WR)
        status = self.hear().get("status")
        self.link.close()
        if status:
            raise Failure(f"{self.what} ended with status {status}")


class Demo:
    def __init__(self, arguments):
        self.build = os.path.abspath(arguments.build)
        self.folder = tempfile.mkdtemp(prefix="weft-demo-")
        self.processes = []
        self.sockets = {}
        self.nodes = {}
        self.arguments = arguments
        hosts = [arguments.here_all, arguments.there_all or arguments.here_all]
        if arguments.serve:
            hosts.reverse()
        ports = [NODE_PORT, NODE_PORT + (not arguments.there)]
        self.addresses = {name: ",".join(f"{address}:{port}" for address in addresses)
                          for name, addresses, port in zip(("node-a", "node-b"), hosts, ports)}
        self.figures = {"requests": 0, "identical": 0, "prompt_tokens": 0, "saved": 0,
                        "by_handoff": 0, "cold_us": [], "warm_us": []}

    def tool(self, path):
        return os.path.join(self.build, path)

    def weft(self, *words, check=True):
        run = subprocess.run([self.tool("cli/weft"), *words], capture_output=True, text=True,
                             check=False)
        if check and run.returncode:
            raise Failure(f"weft {' '.join(words)}: {run.stderr.strip() or run.stdout.strip()}")
        return run

    def start(self, command, **how):
        Stop.starting += 1
        process = subprocess.Popen(command, **how)
        self.processes.append(process)
        Stop.starting -= 1
        Stop.check()
        return process

    # ---- nodes ----

    def start_node(self, name, peer):
        place = os.path.join(self.folder, name + ".sock")
        command = [self.tool("daemon/weftd"), "-c", "/dev/null", "-o", f"name={name}",
                   "-o", f"socket={place}", "-o", f"arena_bytes={self.arguments.arena}",
                   "-o", "prefault=true", "-o", "log_level=warn"]
        if self.arguments.transport == "shm":
            other = f'socket = "{os.path.join(self.folder, peer + ".sock")}"'
        else:
            other = f'address = "{self.addresses[peer]}"'
            command += ["-o", f"transport={self.arguments.transport}",
                        "-o", f"listen={self.addresses[name]}"]
            if self.arguments.device:
                command += ["-o", f"device={self.arguments.device}"]
            if self.arguments.silent:
                command += ["-o", f"silent_ms={self.arguments.silent}"]
            if self.arguments.pki:
                for setting, file in (("cert", f"{name}.crt"), ("key", f"{name}.key"),
                                      ("ca", "ca.crt")):
                    command += ["-o", f"tls_{setting}={os.path.join(self.arguments.pki, file)}"]
            elif self.arguments.here != LOOPBACK:
                command.append("--insecure")
        if self.arguments.etcd:
            command += ["-o", f"membership=etcd:{self.arguments.etcd}"]
        # one of the two dials
        elif name == "node-a":
            command += ["-o", f'peers=({{ name = "{peer}"; {other}; }})']
        self.sockets[name] = place
        self.nodes[name] = self.start(command)

    def status(self, name):
        run = self.weft("status", "--json", "--socket", self.sockets[name], check=False)
        return json.loads(run.stdout) if run.returncode == 0 else None

    def wait_for_nodes(self):
        deadline = time.monotonic() + 60
        for name in self.sockets:
            while True:
                status = self.status(name)
                peers = status["peers"] if status else []
                connected = sum(p["state"] == "connected" and p["name"] in self.addresses
                                for p in peers)
                if connected >= len(self.arguments.here_all):
                    break
                if self.nodes[name].poll() is not None:
                    raise Failure(f"node {name} has ended with status "
                                  f"{self.nodes[name].returncode}")
                if time.monotonic() > deadline:
                    raise Failure(f"node {name} does not come up")
                time.sleep(0.05)

    def top(self, name):
        if name not in self.sockets:
            far = Far(self.arguments.there, top=name)
            answer = far.hear()
            far.end()
            return answer
        run = self.weft("top", "--json", "--total", "--socket", self.sockets[name])
        return json.loads(run.stdout)

    def metrics(self):
        """lifetime figures of all nodes: counters added up, per-operation times by node"""
        counters, times = {}, {}
        for name in ("node-a", "node-b"):
            top = self.top(name)
            for c in top["counters"]:
                key = c["name"] + ("{" + c["labels"] + "}" if c["labels"] else "")
                counters[key] = counters.get(key, 0) + c["total"]
            times[name] = {o["op"]: o for o in top["ops"]}
        return counters, times

    # ---- prompts ----

    def reference(self, prompts, options):
        engine = Engine(self, "both", None, "--embedded", "--no-reuse", *options)
        tokens = []
        for i, prompt in enumerate(prompts):
            engine.say({"id": i, "prompt": prompt})
            tokens.append(engine.hear()["tokens"])
        engine.end()
        return tokens

    def engine(self, role, node, options):
        if node in self.sockets:
            return Engine(self, role, node, *options)
        return Far(self.arguments.there, role=role, options=options)

    def disaggregated(self, title, prompts, expected, options, nodes, times_us):
        """prefill on one node, decode on the other; this loop is the router"""
        prefill = self.engine("prefill", nodes[0], options)
        decode = self.engine("decode", nodes[1], options)
        same = hit = 0
        for i, prompt in enumerate(prompts):
            decode.say({"id": i, "prompt": prompt})
            ticket = decode.hear()
            if ticket["ticket"]:
                prefill.say({"id": i, "prompt": prompt, "ticket": ticket["ticket"],
                             "first_block": ticket["first_block"]})
            result = decode.hear()
            saved = result["prefix_tokens_hit"]
            if ticket["ticket"]:
                done = prefill.hear()
                self.figures["by_handoff"] += done["handoff_tokens"]
                saved = max(saved, done["prefix_tokens_hit"])
            same += result["tokens"] == expected[i]
            hit += saved
            self.figures["prompt_tokens"] += result["prompt_tokens"]
            times_us.append(result["ttft_us"])
        prefill.end()
        decode.end()
        self.figures["requests"] += len(prompts)
        self.figures["identical"] += same
        self.figures["saved"] += hit
        say(f"{title}: {same} of {len(prompts)} answers identical, "
            f"{hit} prompt tokens from the cache")

    def read_prompts(self):
        try:
            with open(self.arguments.prompts, encoding="utf-8") as file:
                prompts = [line.rstrip("\n") for line in file if line.strip()]
        except (OSError, UnicodeDecodeError) as fault:
            raise Failure(f"{self.arguments.prompts}: {fault}") from None
        if not prompts:
            raise Failure(f"{self.arguments.prompts}: no prompt in it")
        return prompts

    def run_prompts(self, prompts):
        size = ["--size", self.arguments.size, "--max-tokens", str(self.arguments.max_tokens)]
        hot = ["--temperature", "0.8", "--sample-seed", "42"]
        other = ["--seed", "2"]
        figures = self.figures
        say(f"{len(prompts)} prompts, model {self.arguments.size}: the tokens of a single process")
        greedy = self.reference(prompts, size)
        sampled = self.reference(prompts, size + hot)
        local = self.reference(prompts, size + other)
        a_to_b = ("node-a", "node-b")
        self.disaggregated("prefill on node-a, decode on node-b", prompts, greedy, size, a_to_b,
                           figures["cold_us"])
        self.disaggregated("the same once more", prompts, greedy, size, a_to_b, figures["warm_us"])
        self.disaggregated("the same, sampled", prompts, sampled, size + hot, a_to_b,
                           figures["warm_us"])
        self.disaggregated("both on node-a, other weights", prompts, local, size + other,
                           ("node-a", "node-a"), figures["cold_us"])

    # ---- trace ----

    def run_trace(self):
        trace = self.arguments.trace
        if not trace:
            trace = os.path.join(self.folder, "trace.jsonl")
            made = self.weft("replay", "--generate", str(self.arguments.generate), "--seed", "7")
            with open(trace, "w", encoding="utf-8") as file:
                file.write(made.stdout)
        say(f"replaying {self.arguments.trace or 'a generated trace'} through "
            f"{' and '.join(self.sockets)}")
        words = ["replay", "--trace", trace, "--block-bytes", "64K", "--json"]
        if self.arguments.limit:
            words += ["--limit", str(self.arguments.limit)]
        for place in self.sockets.values():
            words += ["--socket", place]
        run = self.weft(*words, check=False)
        try:
            return json.loads(run.stdout)
        except ValueError:
            raise Failure(f"weft replay: {run.stderr.strip()}") from None

    # ---- the end ----

    def table(self, replay):
        f = self.figures
        counters, times = self.metrics()

        def quantiles(op):
            if not op or not op["p50_ns"]:
                return "-"
            names = ("p50_ns", "p99_ns", "p999_ns")
            return " / ".join(f"{op[name] / 1000:.1f}" for name in names) + " us"

        def median(values):
            values = sorted(values)
            return values[len(values) // 2] / 1000 if values else 0.0

        by_reference = counters.get("weft_handoff_by_reference", 0)
        between = counters.get("weft_handoff_read", 0)
        moved = between + replay["bytes_got"] + replay["bytes_put"]
        push_a = times["node-a"].get("handoff_push")
        rows = [
            ("requests", f"{f['requests']} with tokens, {replay['requests']} replayed"),
            ("answers identical", f"{f['identical']} of {f['requests']}"),
            ("prefix-hit rate", f"{100 * f['saved'] / f['prompt_tokens']:.1f} % of prompt "
             f"tokens, {100 * replay['hit_rate']:.1f} % of the trace's blocks"),
            ("prefill tokens saved", f"{f['saved']} of {f['prompt_tokens']}, and "
             f"{replay['tokens_saved']} of {replay['tokens']} in the trace"),
            ("bytes moved", f"{moved / 1e6:.1f} MB, {between / 1e6:.1f} MB between the nodes"),
            ("by reference", f"{by_reference / 1e6:.1f} MB handed over without moving a byte"),
            ("replay, get and put", f"{replay['gb_per_s']:.2f} GB/s"),
            ("match p50/p99/p99.9", quantiles(replay["match"])),
            ("get p50/p99/p99.9", quantiles(replay["get"])),
            ("handoff, a layer", quantiles(push_a)),
            ("time to first token", f"{median(f['cold_us']):.2f} ms cold, "
                                    f"{median(f['warm_us']):.2f} ms from the cache"),
            ("wrong bytes", str(replay["wrong_bytes"])),
        ]
        print()
        for name, value in rows:
            print(f"  {name:<24}{value}")
        print()

    def run(self):
        prompts = self.read_prompts()
        if self.arguments.trace and not os.access(self.arguments.trace, os.R_OK):
            raise Failure(f"{self.arguments.trace}: there is no such file to read")
        # the second host serves as long as this connection lasts
        far = Far(self.arguments.there, first=True) if self.arguments.there else None
        self.start_node("node-a", "node-b")
        if not far:
            self.start_node("node-b", "node-a")
        say(f"started {' and '.join(self.sockets)}; they meet over {self.arguments.transport}")
        self.wait_for_nodes()
        self.run_prompts(prompts)
        replay = self.run_trace()
        self.table(replay)
        if self.figures["identical"] != self.figures["requests"]:
            raise Failure("some tokens differ from those of a single process")
        if replay["wrong_bytes"]:
            raise Failure("some bytes came back wrong")
        say("all tokens and bytes are right")
        if far:
            far.end()

    # ---- the second host ----

    def serve_engine(self, wish, link, lines):
        options = [str(word) for word in wish["options"]]
        if wish["role"] not in ("prefill", "decode") or any(
                word not in OPTIONS for word in options[::2]):
            raise Failure(f"asked for an engine that is none: {wish}")
        engine = Engine(self, wish["role"], "node-b", *options)

        def asked():
            copy_lines(lines, engine.to)
            engine.to.close()

        pump = threading.Thread(target=asked)
        pump.start()
        copy_lines(engine.back, link)
        pump.join()
        return engine.process.wait(timeout=60)

    def serve_one(self, connection):
        with connection, connection.makefile("r") as lines, connection.makefile("w") as link:
            wish = json.loads(lines.readline() or "{}")
            status = 0
            if "role" in wish:
                status = self.serve_engine(wish, link, lines)
            elif "top" in wish:
                print(json.dumps(self.top("node-b")), file=link, flush=True)
                lines.read()
            else:
                lines.read()
            print(json.dumps({"status": status}), file=link, flush=True)

    def serve(self):
        """node-b, and what the first host asks for, until it goes"""
        self.start_node("node-b", "node-a")
        with socket.create_server((self.arguments.here, SERVE_PORT)) as server:
            server.settimeout(120)
            say(f"node-b serves the demo on {self.arguments.there}")
            first = threading.Thread(target=self.serve_one, args=(self.accept(server),))
            first.start()
            server.settimeout(0.2)
            while first.is_alive():
                Stop.check()
                try:
                    threading.Thread(target=self.serve_one, args=(self.accept(server),)).start()
                except TimeoutError:
                    continue
            first.join()
        say("the first host is done")

    def accept(self, server):
        while True:
            connection, (host, _) = server.accept()
            if host == self.arguments.there:
                connection.settimeout(None)
                return connection
            connection.close()

    def end(self):
        """only what was started here, by pid"""
        for process in reversed(self.processes):
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
        for process in self.processes:
            try:
                process.wait(timeout=10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        shutil.rmtree(self.folder, ignore_errors=True)


def copy_lines(lines, to):
    for line in lines:
        to.write(line)
        to.flush()


def arguments_parse():
    parser = argparse.ArgumentParser(
        prog="./demo", description="Runs Weft's main job here, checks every token and byte.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="examples:\n"
               "  ./demo\n"
               "  ./demo --prompts my.txt --size kv8b\n"
               "  ./demo --trace FILE.jsonl\n"
               "  ./demo --transport tcp      both nodes on this host, as if on two; or ucx\n"
               "  ./demo --transport verbs    the same, through its RDMA NIC\n"
               "  ./demo --transport verbs --here 192.0.2.2 --there 192.0.2.1 --serve\n"
               "                              on the second of two hosts, then on the first:\n"
               "  ./demo --transport verbs --here 192.0.2.1 --there 192.0.2.2")
    parser.add_argument("--prompts", default=os.path.join(HERE, "prompts.txt"),
                        help="text file, one prompt a line")
    parser.add_argument("--trace", help="request trace in Mooncake's JSONL form")
    parser.add_argument("--limit", type=int, help="replay only the first N requests of the trace")
    parser.add_argument("--size", default="small", choices=("tiny", "small", "kv8b"),
                        help="of the model (tinylm --help)")
    parser.add_argument("--max-tokens", type=int, default=24, help="length of each answer")
    parser.add_argument("--transport", choices=("shm", "verbs", "ucx", "tcp"),
                        default="shm",
                        help="how the nodes reach each other")
    parser.add_argument("--device", help="device of that transport, e.g. mlx5_0")
    parser.add_argument("--silent", metavar="TIME",
                        help="nodes that do not answer for so long are gone, e.g. 5s; more than "
                             "the default where processors are short")
    parser.add_argument("--here", default=LOOPBACK,
                        help="address of this host, where nodes are two hosts; one of each device: "
                             "A,B")
    parser.add_argument("--there",
                        help="address of a second host, where node-b is; as many as --here has")
    parser.add_argument("--pki", help="folder with ca.crt, node-a.crt, node-a.key, node-b.crt and "
                        "node-b.key, as weft pki makes them: nodes connect over TLS")
    parser.add_argument("--etcd", help="URL of an etcd where the nodes find each other")
    parser.add_argument("--serve", action="store_true", help="this is the second host")
    parser.add_argument("--arena", default="384M", help="memory of each node")
    parser.add_argument("--generate", type=int, default=1500,
                        help="requests of the generated trace")
    parser.add_argument("--build", default="build/demo", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.transport == "shm" and (arguments.there or arguments.serve):
        parser.error("shared memory ends at the host: --there and --serve need another --transport")
    if arguments.serve and not arguments.there:
        parser.error("--serve needs --there: the address of the first host")
    arguments.here_all = arguments.here.split(",")
    arguments.there_all = arguments.there.split(",") if arguments.there else None
    if arguments.there and len(arguments.here_all) != len(arguments.there_all):
        parser.error("--here and --there need as many addresses: each pair is a rail")
    # what is not a matter of nodes goes by the first
    arguments.here = arguments.here_all[0]
    arguments.there = arguments.there_all[0] if arguments.there else None
    return arguments


def main():
    arguments = arguments_parse()
    demo = Demo(arguments)
    try:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, Stop.signalled)
        if demo.arguments.serve:
            demo.serve()
        else:
            demo.run()
    except Failure as failure:
        print(f"demo: {failure}", file=sys.stderr)
        return 1
    finally:
        demo.end()
    return 0


if __name__ == "__main__":
    sys.exit(main())
