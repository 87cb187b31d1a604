#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""what is answered over HTTP: test_http.py STEP HOST:PORT [ARGUMENT...], called by test_http.sh"""

import http.client
import json
import random
import re
import socket
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
    for line in data.decode().splitlines():
        if line.startswith("#"):
            continue
        m = sample.match(line)
        assert m, line
        names.add(m.group(1))
    assert {"weft_ops_total", "weft_op_seconds_bucket", "weft_remote_blocks_total"} <= names
    assert data.endswith(b"# EOF\n")
    resp, _ = ask("GET", "/metrics", headers={"Accept": "application/openmetrics-text;q=0.9"})
    assert resp.getheader("Content-Type").startswith("application/openmetrics-text")
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
    for text in [b"GET\r\n\r\n", b"GET /healthz\r\n\r\n", b"\0" * 1000, b"\r\n" * 1000,
                 b"GET /healthz HTTP/9.9\r\n\r\n", b"GET /healthz HTTP/1.1\r\n\r\n",
                 b"GET " + b"a" * 100000 + b" HTTP/1.1\r\n\r\n",
                 b"GET /healthz HTTP/1.1\r\nHost: x\r\n" + b"a: b\r\n" * 50000 + b"\r\n",
                 b"POST /route HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
                 b"POST /route HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999999999999\r\n\r\n",
                 b"POST /route HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
                 b"POST /route HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nab"]:
        got = raw(text, True)
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
