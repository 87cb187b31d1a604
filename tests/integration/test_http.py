#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""what is answered over HTTP: test_http.py STEP HOST:PORT [ARGUMENT...], called by test_http.sh"""

import concurrent.futures
import errno
import http.client
import json
import random
import re
import socket
import subprocess
import sys
import threading
import time

HOST, PORT = "127.0.0.1", 0


def ask(method, path, body=None, headers=None):
    conn = http.client.HTTPConnection(HOST, PORT, timeout=20)
    conn.request(method, path, body, headers or {})
    resp = conn.getresponse()
    data = resp.read()
    conn.close()
    return resp, data


def ask_json(method, path, body=None, headers=None, want=200):
    if isinstance(body, (dict, list)):
        body = json.dumps(body)
    resp, data = ask(method, path, body, headers)
    assert resp.status == want, (path, body, resp.status, data)
    assert resp.getheader("Content-Type") == "application/json"
    d = json.loads(data)
    assert ("error" in d) == (want != 200 and want != 503), d
    return d


def raw(data, half=False):
    """Return: all that is answered until the other side hangs up"""
    s = socket.create_connection((HOST, PORT), timeout=20)
    got = b""
    try:
        s.sendall(data)
        if half:
            s.shutdown(socket.SHUT_WR)
        while True:
            part = s.recv(65536)
            if not part:
                break
            got += part
    except (ConnectionResetError, BrokenPipeError):
        pass
    except OSError as err:
        # it hung up before this side could
        if err.errno != errno.ENOTCONN:
            raise
    s.close()
    return got


def healthy():
    assert ask_json("GET", "/healthz") == {"status": "ok"}


# ---- what it is for


def metrics():
    resp, data = ask("GET", "/metrics")
    assert resp.status == 200
    assert resp.getheader("Content-Type") == "text/plain; version=0.0.4; charset=utf-8"
    names = set()
    sample = re.compile(r'([a-z_][a-z0-9_]*)(\{[^{}]*\})? (\d+(\.\d+)?)$')
    told = {}
    for line in data.decode().splitlines():
        if line.startswith("# HELP"):
            told[line.split()[2]] = line.split(maxsplit=3)[3]
        if line.startswith("#"):
            continue
        m = sample.match(line)
        assert m, line
        names.add(m.group(1))
        family = re.sub("_(bucket|count|sum)$", "", m.group(1))
        assert told.get(family) or told.get(m.group(1)), f"{m.group(1)} has no help"
    assert {"weft_ops_total", "weft_op_seconds_bucket", "weft_remote_blocks_total"} <= names
    assert {"weft_engines", "weft_peers_connected", "weft_version"} <= names
    assert b"# EOF" not in data
    resp, data = ask("GET", "/metrics", headers={"Accept": "application/openmetrics-text;q=0.9"})
    assert resp.getheader("Content-Type").startswith("application/openmetrics-text")
    assert data.endswith(b"# EOF\n")
    resp, data = ask("HEAD", "/metrics")
    assert resp.status == 200 and not data
    healthy()


def members(*names):
    end = time.time() + 20
    while True:
        d = ask_json("GET", "/members")
        assert d["node"]["name"] == names[0]
        if {p["name"] for p in d["peers"] if p["state"] == "connected"} == set(names[1:]):
            return
        assert time.time() < end, d
        time.sleep(0.05)


def route(keys_file, best, token=""):
    with open(keys_file, encoding="ascii") as f:
        keys = f.read().split()
    headers = {"Authorization": "Bearer " + token} if token else {}
    q = {"space": "weft-cli", "keys": keys}
    end = time.time() + 20
    while True:
        d = ask_json("POST", "/route", q, headers)
        if d["nodes"][0]["node"] == best and d["nodes"][0]["memory"] == len(keys):
            break
        assert time.time() < end, d
        time.sleep(0.05)
    assert d["blocks"] == len(keys)
    others = d["nodes"][1:]
    assert others and all(n["fetch"] == len(keys) and n["fetch_us"] > 0 for n in others), d
    d = ask_json("GET", "/route?space=weft-cli:bytes&nodes=%s,0x77&block_us=50&keys=%s"
                 % (best, ",".join(keys)), headers=headers)
    assert [(n["node"], n["state"] == "dead") for n in d["nodes"]] == [(best, False), ("", True)]
    # a chain by its tokens: nobody has that one
    d = ask_json("POST", "/route", {"space": "weft-cli", "tokens": list(range(40))}, headers)
    assert d["blocks"] == 2 and all(n["memory"] == 0 for n in d["nodes"])


def foreign(keys_file, token):
    """keys of another tenant name nothing"""
    with open(keys_file, encoding="ascii") as f:
        q = {"space": "weft-cli", "keys": f.read().split()}
    d = ask_json("POST", "/route", q, {"Authorization": "Bearer " + token})
    assert all(n["memory"] == 0 and n["fetch"] == 0 for n in d["nodes"]), d


class Stream:
    """GET /events, event by event"""

    def __init__(self, token="", last=None, want=200):
        headers = {"Authorization": "Bearer " + token} if token else {}
        if last is not None:
            headers["Last-Event-ID"] = last
        self.conn = http.client.HTTPConnection(HOST, PORT, timeout=20)
        self.conn.request("GET", "/events", headers=headers)
        self.resp = self.conn.getresponse()
        assert self.resp.status == want, (self.resp.status, want)
        self.last = last
        if want == 200:
            assert self.resp.getheader("Content-Type") == "text/event-stream"

    def next(self):
        """Return: (event, data), or None at the end"""
        event, data = "", ""
        while True:
            line = self.resp.readline().decode()
            if not line:
                return None
            key, _, value = line.rstrip("\n").partition(":")
            value = value[1:] if value.startswith(" ") else value
            if key == "event":
                event = value
            elif key == "data":
                data += value
            elif key == "id":
                self.last = value
            elif line == "\n" and event:
                return event, json.loads(data)

    def want(self, event):
        got = self.next()
        assert got and got[0] == event, (event, got)
        return got[1]

    def follow(self, held, until):
        """keeps the set of keys as the stream tells it, until it is as wanted, or is synced"""
        while until is None or held != until:
            event, data = self.next()
            if event == "cleared":
                held.clear()
            elif event == "stored":
                held |= set(data["keys"])
            elif event == "removed":
                held -= set(data["keys"])
            elif event == "synced" and until is None:
                return held
        return held

    def synced(self):
        self.want("cleared")
        return self.follow(set(), None)

    def chain(self, nr):
        """Return: the space and the keys of the next chain, which may come in parts"""
        keys = []
        while len(keys) < nr:
            data = self.want("stored")
            assert data["tier"] == "dram" and data["parent"] == (keys[-1] if keys else None), data
            keys += data["keys"]
        return data["space"], keys

    def close(self):
        self.conn.close()
        self.resp.close()


class Weft:
    """the command line, for one node and one tenant"""

    def __init__(self, program, sock, token=""):
        self.program, self.end = program, ["--socket", sock]
        self.tenant = "other" if token else "default"
        if token:
            self.end += ["--token", token]

    def run(self, *args, data=None):
        return subprocess.run([self.program, *args, *self.end], input=data, check=True,
                              timeout=60, stdout=subprocess.PIPE).stdout

    def put(self, key, nr):
        self.run("put", "--block-bytes", "1K", "--key", key,
                 data=random.Random(key).randbytes(1024 * nr - 100))

    def drop(self, key):
        self.run("drop", "--block-bytes", "1K", "--key", key)

    def held(self):
        spaces = json.loads(self.run("ls", "--json"))["spaces"]
        space = [s["id"] for s in spaces if s["tenant"] == self.tenant and s["block_bytes"] == 1024]
        out = self.run("ls", "--space", str(space[0]), "--json").decode()
        return {b["key"]: b.get("parent") for b in map(json.loads, out.splitlines())}


def events(program, sock, token):
    weft, other = Weft(program, sock), Weft(program, sock, token)
    s = Stream()
    assert s.synced() == set()
    # blocks come, chain by chain, and go
    weft.put("x", 3)
    space, x = s.chain(3)
    parents = weft.held()
    assert [parents[k] for k in x] == [None] + x[:2], (x, parents)
    after_x = s.last
    weft.put("y", 40)
    held = s.follow(set(x), set(weft.held()))
    # those of another tenant are another's
    other.put("x", 5)
    o = Stream(token)
    theirs = o.synced()
    assert theirs == set(other.held()) and not theirs & held
    weft.drop("x")
    gone = s.want("removed")
    assert gone["space"] == space and set(gone["keys"]) <= set(x)
    s.follow(held - set(gone["keys"]), set(weft.held()))
    other.drop("x")
    o.follow(theirs, set())
    o.close()
    # who comes back misses nothing, and is told nothing twice
    last = s.last
    s.close()
    s = Stream(last=last)
    weft.put("z", 1)
    assert set(s.chain(1)[1]) == set(weft.held()) - held
    s.close()
    s = Stream(last=after_x)
    assert s.follow(set(x), set(weft.held()))
    # ids that this node never gave
    for strange in [after_x[:-1] + "999999", "0123456789abcdef-1"]:
        s.close()
        s = Stream(last=strange)
        s.want("gap")
        assert s.last == ""
        assert s.synced() == set(weft.held())
        assert s.last
    for wrong in ["x", "0123456789abcdef-", "0123456789abcdef-1x", "1-1", "9" * 200]:
        ask_json("GET", "/events", headers={"Last-Event-ID": wrong}, want=400)
    ask_json("GET", "/events", headers={"Authorization": "Bearer wrong"}, want=403)
    ask_json("POST", "/events", "x", want=405)
    # few may listen, and who hangs up makes room
    more = [Stream() for _ in range(7)]
    Stream(want=503).close()
    for m in more:
        m.close()
    end = time.time() + 10
    while ask("HEAD", "/events")[0].status != 200:
        assert time.time() < end
        time.sleep(0.05)
    print(s.last)


def events_end():
    """listens for as long as the node lives"""
    s = Stream()
    s.synced()
    print("ready", flush=True)
    try:
        assert s.next() is None
    except http.client.IncompleteRead:
        pass


def events_anew(program, sock, last):
    """the node has another life than the one that gave the id"""
    weft = Weft(program, sock)
    weft.put("x", 3)
    s = Stream(last=last)
    assert "anew" in s.want("gap")["why"]
    assert s.synced() == set(weft.held())


def events_slow(program, sock):
    """more comes and goes than the node keeps for one that does not read"""
    weft = Weft(program, sock)
    slow, quick = Stream(), Stream()
    slow.synced()
    held = quick.synced()
    first = slow.last
    for i in range(14):
        weft.put("a%d" % i, 2000)
        quick.follow(held, set(weft.held()))
        weft.drop("a%d" % i)
    weft.put("last", 2000)
    quick.follow(held, set(weft.held()))
    got = None
    while True:
        event = slow.next()
        if not event:
            break
        got = event
    assert got and got[0] == "slow", got
    # what it missed is not kept any more, nor is the id that it began with
    for last in [slow.last, first]:
        s = Stream(last=last)
        s.want("gap")
        assert s.synced() == set(weft.held())
        s.close()


# ---- what it must bear


def mistakes():
    k = "0" * 31 + "1"
    for want, method, path, body in [
            (404, "GET", "/", None), (404, "GET", "/metrics/", None), (404, "POST", "/", "x"),
            (405, "POST", "/metrics", "x"), (405, "DELETE", "/route", None),
            (400, "GET", "/route", None), (400, "GET", "/route?space=weft-cli", None),
            (400, "GET", "/route?space=weft-cli&keys=", None),
            (400, "GET", "/route?space=weft-cli&keys=12", None),
            (400, "GET", "/route?space=weft-cli&tokens=1,x", None),
            (400, "GET", "/route?space=weft-cli&tokens=1,2", None),
            (400, "GET", "/route?space=weft-cli&block_us=0&keys=" + k, None),
            (400, "GET", "/route?space=weft-cli&nodes=nobody&keys=" + k, None),
            (400, "GET", "/route?space=weft-cli&color=red&keys=" + k, None),
            (404, "GET", "/route?space=none&keys=" + k, None),
            (400, "POST", "/route", ""), (400, "POST", "/route", "{"),
            (400, "POST", "/route", "[" * 100000), (400, "POST", "/route", []),
            (400, "POST", "/route", {"space": 7}), (400, "POST", "/route", {"keys": 7}),
            (400, "POST", "/route", {"space": "weft-cli", "keys": [7]}),
            (400, "POST", "/route", {"space": "weft-cli", "keys": [k], "tokens": [1]}),
            (400, "POST", "/route", {"space": "weft-cli", "tokens": [-1] * 16}),
            (400, "POST", "/route", {"space": "weft-cli", "tokens": [1.5] * 16}),
            (400, "POST", "/route", {"space": "weft-cli", "keys": [k] * 8193}),
            (400, "POST", "/route", {"space": "x" * 999, "keys": [k]}),
            (400, "POST", "/route", {"space": "weft-cli", "keys": [k], "nodes": [""]}),
            (413, "POST", "/route", "x" * (2 << 20))]:
        ask_json(method, path, body, want=want)
    ask_json("POST", "/route", {"space": "weft-cli", "keys": [k]},
             {"Authorization": "Bearer wrong"}, want=403)
    ask_json("POST", "/route", {"space": "weft-cli", "keys": [k]},
             {"Authorization": "Bearer " + "x" * 500}, want=403)
    healthy()


def garbage():
    rand = random.Random(7)
    for _ in range(200):
        raw(bytes(rand.randrange(256) for _ in range(rand.randrange(1, 2000))) + b"\r\n\r\n", True)
    texts = [b"GET\r\n\r\n", b"GET /healthz\r\n\r\n", b"\0" * 1000, b"\r\n" * 1000,
             b"GET /healthz HTTP/9.9\r\n\r\n", b"GET /healthz HTTP/1.1\r\n\r\n",
             b"GET " + b"a" * 100000 + b" HTTP/1.1\r\n\r\n",
             b"GET /healthz HTTP/1.1\r\nHost: x\r\n" + b"a: b\r\n" * 50000 + b"\r\n",
             b"POST /route HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
             b"POST /route HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999999999999\r\n\r\n",
             b"POST /route HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
             b"POST /route HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nab"]
    # some of these are waited for
    with concurrent.futures.ThreadPoolExecutor(len(texts)) as pool:
        for text, got in zip(texts, pool.map(lambda text: raw(text, True), texts)):
            assert b"200 OK" not in got, (text[:80], got)
    healthy()


def pipeline():
    one = b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"
    got = raw(one * 20 + b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    assert got.count(b"HTTP/1.1 200 OK") == 21, got
    # who has said all, and still listens, is answered
    assert raw(one, True).count(b"200 OK") == 1
    # and who listens no more costs nothing
    for _ in range(50):
        s = socket.create_connection((HOST, PORT), timeout=20)
        s.sendall(one * 50)
        s.close()
    healthy()


def loris():
    """those that dribble, and those that say nothing, take no place for long"""
    begin = time.time()
    socks = [socket.create_connection((HOST, PORT), timeout=30) for _ in range(64)]
    ended = []

    def dribble(s):
        try:
            s.sendall(b"GET /healthz HTTP/1.1\r\n")
            while time.time() < begin + 60:
                s.sendall(b"x")
                s.settimeout(0.5)
                try:
                    if not s.recv(100):
                        break
                except socket.timeout:
                    pass
        except OSError:
            pass
        ended.append(time.time() - begin)
        s.close()

    threads = [threading.Thread(target=dribble, args=(s,)) for s in socks[:32]]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert max(ended) < 20, max(ended)
    for s in socks[32:]:
        s.settimeout(20)
        try:
            assert s.recv(100) == b""
        except ConnectionResetError:
            pass
        s.close()
    healthy()


def main():
    global PORT
    PORT = int(sys.argv[2].rsplit(":", 1)[1])
    globals()[sys.argv[1]](*sys.argv[3:])


main()
