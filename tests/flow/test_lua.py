"""Functions in Lua: what each call does, what waits, and what happens to code that misbehaves."""
import collections
import json
import re
import textwrap
import threading
import time

import pytest

from kit import SLOW, raw, until
from kit.raw import answer, fetch
from kit.weir import MODULES

if not (MODULES / "lua.so").exists():
    pytest.skip("weir was configured --without-lua", allow_module_level=True)


def block(**code):
    return "".join(f"{name} <<LUA\n{textwrap.dedent(text).strip()}\nLUA\n" for name, text in code.items())


def conf(words="", top="", action="respond 200 ok;", use="", **code):
    """One route with one function: words stand in its block, use on its line."""
    return (f"module lua; {top} listen 127.0.0.1:@http@; host * {{ route / {{\nfunction lua name=f {use} "
            f"{{ {words}\n{block(**code)} }}\n{action} }} }}")


def redis_top(timeout="connect=2s command=2s"):
    return f"redis main {{ server @redis@; timeout {timeout}; }}"


# ---------------------------------------------------------------- how it is written


EXAMPLE = 'if request.headers["x-debug"] then request.headers["x-trace"] = request.id end'


@pytest.mark.parametrize("written", [f"<<LUA\n{EXAMPLE}\nLUA\n", "${file:x.lua};", f"{{ request '{EXAMPLE}'; }}",
                                     "request=${file:x.lua};"])
def test_forms(weir, server, written):
    s = server(answer(b"x"))
    w = weir("module lua; upstream u { server @backend@; } listen 127.0.0.1:@http@; "
             f"host * {{ route / {{ function lua {written}\nproxy u; }} }}", files={"x.lua": EXAMPLE}, backend=s)
    fetch(w.http)
    assert "x-trace" not in s.last()
    fetch(w.http, fields={"x-debug": "1"})
    assert s.last().get("x-trace") == s.last().get("x-request-id")


@pytest.mark.parametrize("code, at, says", [
    ("local a = = 1", (2, 11), "unexpected symbol near '='"),
    ("local x = 1\n  if x then\n", (3, 11), "'end' expected"),
    ("x = 'abc", (2, 5), "unfinished string"),
    ("local a\n  goto nowhere\nlocal b\n", (3, 3), "undefined label"),
    ("local a = 1\nlocal b = a +* 2", (3, 14), "unexpected symbol near '*'"),
    ("\x1bLJ", (2, 1), "attempt to load chunk with wrong mode"),
])
def test_mistakes_are_pointed_at(weir, code, at, says):
    w = weir("", start=False)
    w.conf.write_text(f"module_path {MODULES}; module lua; host * {{ route / {{ function lua <<LUA\n{code}\nLUA\n"
                      "respond 200; } }")
    if "\x1b" in code:
        w.conf.write_text(w.conf.read_text().replace("<<LUA\n\x1bLJ\nLUA\n", "${file:b.lua};"))
        w.file("b.lua", code)
    done = w.command("-t")
    assert done.returncode == 1
    if "\x1b" in code:
        assert says in done.stderr
        return
    m = re.search(r"weir\.conf:(\d+):(\d+): lua: (.*)\n(.*)\n( *)\^", done.stderr)
    assert m and says in m.group(3), done.stderr
    assert (int(m.group(1)), int(m.group(2))) == at, done.stderr
    assert len(m.group(5)) == int(m.group(2)) - 1 + 4, "the caret stands below it"


def test_mistakes_in_a_file_of_its_own(weir):
    w = weir("module lua; host * { route / { function lua ${file:x.lua}; respond 200; } }",
             files={"x.lua": "local a = 1\nlocal b == 2\n"}, start=False)
    done = w.command("-t")
    assert done.returncode == 1
    assert re.search(r"weir\.conf:2:\d+: lua: \S*x\.lua:2:9: '=' expected|weir\.conf:2:\d+: lua: \S*x\.lua:2:9: ",
                     done.stderr), done.stderr


@pytest.mark.parametrize("words, says", [
    ("", "there is no code"),
    ("request 'x()'; redis nowhere;", "there is no redis nowhere"),
    ("request ''; redis main; redis main;", "a second one needs a name: redis STORE as NAME;"),
    ("request ''; redis main as a; redis main as a;", "redis.a exists already"),
    ("request ''; redis main as 1a;", "is not a name in Lua"),
    ("request ''; upstream nowhere;", "there is no upstream nowhere"),
    ("request ''; upstream u; upstream u;", "a second one needs a name: upstream NAME as NAME;"),
    ("request ''; redis main at a;", '"as" is expected'),
    ("request ''; counter a-b;", "is not the name of a metric"),
    ("request ''; counter limited_total;", "is not the name of a metric"),
    ("request ''; counter a; gauge a;", "metric a exists already"),
    ("request ''; instructions 10;", "instructions must be between"),
    ("request ''; state_memory 1k;", "state_memory must be between"),
    ("request ''; jit maybe;", "is not on or off"),
    ("request ''; init 'error(\"at the start\")';", "weir.conf:3: at the start"),
    ("request ''; init 'while true do end';", "interrupted"),
    ("request ''; init 'local x = request.method';", "there is no request here"),
    ("request ''; init 'respond(200)';", "there is no request here"),
    ("request ''; init 'sleep(1)';", "there is no request here"),
])
def test_refused(weir, words, says):
    w = weir("module lua; redis main { server 127.0.0.1:1; } upstream u { server 127.0.0.1:1; }\nhost * { route / { function lua { " + words
             + " } respond 200; } }", start=False)
    done = w.command("-t")
    assert done.returncode == 1 and re.search(r"weir\.conf:3:\d+: ", done.stderr) and says in done.stderr, done.stderr


def test_without_its_module(weir):
    w = weir("host * { route / { function lua 'x()'; respond 200; } }", start=False)
    assert "module lua is not loaded: module lua; at the top" in w.command("-t").stderr


# ---------------------------------------------------------------- messages


def test_reading_the_request(weir):
    w = weir(conf(request="""
        local r = request
        local all = {}
        for name, value in r.each_header() do all[#all + 1] = name .. "=" .. value end
        respond(200, json.encode({
            method = r.method, path = r.path, uri = r.uri, query = r.query, host = r.host, scheme = r.scheme,
            ip = r.client_ip, q = r.args.q, none = r.args.none or json.null, c = r.cookies.c, one = r.headers["X-Two"],
            both = r.header_values("x-two"), v = var.request_id == r.id, typo = r.methud == nil, all = #all,
        }), { ["content-type"] = "application/json" })"""))
    r = fetch(w.http, "/a%20b?q=x%26y", fields=[("X-Two", "1"), ("X-Two", "2"), ("Cookie", "b=1; c=2")])
    assert r.get("content-type") == "application/json"
    said = json.loads(r.body)
    assert said.pop("all") >= 4
    assert said == {"method": "GET", "path": "/a%20b", "uri": "/a%20b?q=x%26y", "query": "q=x%26y", "host": "a.test",
                    "scheme": "http", "ip": "127.0.0.1", "q": "x&y", "none": None, "c": "2", "one": "1",
                    "both": ["1", "2"], "v": True, "typo": True}


def test_changing_the_request(weir, server):
    s = server(answer(b"x"))
    w = weir(conf("variable user;", "upstream u { server 127.0.0.1:1; } upstream v { server @backend@; }",
                  "proxy u;", request="""
        request.headers["x-one"] = 1
        request.headers["x-many"] = {"a", "b"}
        request.headers["x-gone"] = nil
        request.add_header("x-many", "c")
        request.method = "PUT"
        request.host = "other.test"
        request.args.k = "v w"
        request.args.gone = nil
        request.upstream = "v"
        var.lua_user = "alice"
        response.headers["x-user"] = var.lua_user
        var.lua_user = nil
        response.headers["x-no-user"] = tostring(var.lua_user)"""), backend=s)
    r = fetch(w.http, "/p?gone=1&a=b", fields={"x-gone": "1"})
    q = s.last()
    assert (q.method, q.target, q.get("host")) == ("PUT", "/p?a=b&k=v%20w", "other.test")
    assert (q.all("x-one"), q.all("x-many"), "x-gone" in q) == (["1"], ["a", "b", "c"], False)
    assert (r.get("x-user"), r.get("x-no-user")) == ("alice", "nil")


def test_changing_the_response(weir, server):
    s = server(answer(b"x", fields=[("Server", "old"), ("X-A", "1"), ("X-A", "2")]))
    w = weir(conf(top="upstream u { server @backend@; }", action="proxy u;", response="""
        response.headers["x-seen"] = response.status .. " " .. table.concat(response.header_values("x-a"), "+")
        response.headers.server = nil
        response.status = 201
        response.add_header("x-a", "3")""", log="""
        log.info("ended", response.status, response.headers["x-seen"], request.path)"""), backend=s)
    r = fetch(w.http, "/p")
    assert (r.status, r.get("x-seen"), r.all("x-a"), "server" in r) == (201, "200 1+2", ["1", "2", "3"], False)
    w.wait_log(r"\[function lua f \(weir\.conf:3\) request \w+\] ended 201 200 1\+2 /p")


def test_answering_instead_of_a_response(weir, server):
    s = server(answer(b"secret"))
    w = weir(conf(top="upstream u { server @backend@; }", action="proxy u;",
                  response="return respond(404, 'hidden')"), backend=s)
    r = fetch(w.http)
    assert (r.status, r.body) == (404, b"hidden")


@pytest.mark.parametrize("code, says", [
    ("request.headers['content-length'] = '1'", "field content-length: weir itself decides on that"),
    ("request.headers.x = 'a\\r\\nb: c'", "field x: such a value cannot be sent"),
    ("request.headers.x = {}; request.headers.x = print", "bad argument"),
    ("request.client_ip = '1.2.3.4'", "variable client_ip: weir itself decides on that"),
    ("var.jwt_user = 'x'", "variable jwt_user: weir itself decides on that"),
    ("response.status = 200", "variable status: it is too late for that, or too early"),
    ("respond(42)", "the status must be 200 to 599"),
    ("count = 1", 'global "count" is assigned: write local, or make it in init'),
    ("local a; a.b = 1", "attempt to index local 'a'"),
    ("error({})", "an error that is no string"),
    ("error('plain', 0)", "plain"),
    ("redis('GET', 'x')", "attempt to call global 'redis'"),
    ("metric.add('x')", "metric x: write counter x; or gauge x;"),
    ("sleep(-1)", "sleep: 0 to 3600 seconds"),
    ("sleep(0/0)", "sleep: 0 to 3600 seconds"),
    ("json.encode({[1.5] = 1})", "a name is a number"),
    ("json.encode(0/0)", "not a number"),
    ("local t = {}; t.t = t; json.encode(t)", "nested deeper than 32"),
    ("json.array(request)", "json.array: the table has a metatable already"),
    ("json.encode(print)", "json.encode: a function"),
    ("random_bytes(5000)", "random_bytes: 0 to 1024"),
    ("table.sort({3, 2, 1}, function() sleep(0.1) end)", "attempt to yield across C-call boundary"),
])
def test_errors_have_the_configurations_line(weir, code, says):
    w = weir(conf(request=f"local x = 1\n{code}"))
    assert fetch(w.http).status == 503
    w.wait_metric("weir_local_replies_total", 1, reason="function_error")
    where = r"weir\.conf:6: .*"
    w.wait_log(r"\[function lua f \(weir\.conf:3\) request \w+\] (\S*/)?(\.\.\.\S*)?" + where + re.escape(says))


# ---------------------------------------------------------------- values


def test_values(weir):
    w = weir(conf(request="""
        local out = {}
        local function say(...) out[#out + 1] = table.concat({...}, " ") end
        say(hex.encode("az"), hex.decode("617a"), tostring(hex.decode("6")))
        say(base64.encode("\\255\\254"), base64url.encode("\\255\\254"), base64.decode("YXo="))
        say(percent.encode("a b&"), percent.decode("a%20b"))
        say(hex.encode(sha256("")):sub(1, 8), hex.encode(hmac_sha256("k", "d")):sub(1, 8))
        say(tostring(equal("a", "a")), tostring(equal("a", "b")), #random_bytes(16))
        say(tostring(time() > 1.6e9), tostring(now() > 0), os.date("!%Y", 0), tostring(os.execute))
        local v = json.decode('{"a":[1,2.5,null,[]],"b":{},"c":"\\\\u00e9","d":true}')
        say(v.a[2], tostring(v.a[3] == json.null), v.c, tostring(v.d), #v.a)
        say(json.encode(v.a), json.encode(v.b), json.encode({}), json.encode(json.array({})), json.encode("a\\n"))
        say(json.encode(2^53), json.encode(-1), json.encode(0.1), json.encode({1, {x = false}}))
        say(tostring(json.decode("{")), tostring(select(2, json.decode("[1,]")) ~= nil))
        say(tostring(math.random() < 1), bit.band(6, 3), ("x"):rep(3), tostring(string.dump))
        respond(200, table.concat(out, "\\n"))"""))
    assert fetch(w.http).body.decode().splitlines() == [
        "617a az nil", "//4= __4 az", "a%20b%26 a b", "e3b0c442 " + hmac8(), "true false 16",
        "true true 1970 nil", "2.5 true é true 4", '[1,2.5,null,[]] {} {} [] "a\\n"',
        '9007199254740992 -1 0.1 [1,{"x":false}]', "nil true", "true 2 xxx nil"]


def hmac8():
    import hashlib
    import hmac
    return hmac.new(b"k", b"d", hashlib.sha256).hexdigest()[:8]


def test_what_is_not_there(weir):
    names = ["io", "debug", "package", "require", "module", "ffi", "jit", "load", "loadstring", "loadfile", "dofile",
             "collectgarbage", "getfenv", "setfenv", "newproxy", "coroutine", "os.exit", "os.getenv", "os.remove",
             "os.rename", "os.tmpname", "os.setlocale", "string.dump"]
    tests = ", ".join(f'["{n}"] = {n} ~= nil' for n in names)
    for use in ("", "jit=on"):
        w = weir(conf(use=use, request=f"""
            local left, t = {{}}, {{ {tests} }}
            for name, there in pairs(t) do if there then left[#left + 1] = name end end
            local protected = getmetatable(request) == false and getmetatable(request.headers) == false
                and not pcall(setmetatable, var, nil)
            respond(200, tostring(protected) .. table.concat(left, " "))"""))
        assert fetch(w.http).body == b"true"


def test_the_store(weir):
    w = weir(conf(top="threads 2; workers 2;", request="""
        local a = request.args.a
        if a == "set" then return respond(200, tostring(store.set("k", "v\\0w", 60))) end
        if a == "get" then return respond(200, store.get("k") or "none") end
        if a == "del" then store.del("k") return respond(200, store.get("k") or "none") end
        if a == "brief" then store.set("b", "x", 0.05) return respond(200, store.get("b")) end
        if a == "later" then return respond(200, store.get("b") or "none") end
        respond(200, tostring(store.incr("k", tonumber(request.args.n))))"""))

    def ask(a, **more):
        return fetch(w.http, f"/?a={a}" + "".join(f"&{k}={v}" for k, v in more.items())).body
    assert ask("get") == b"none"
    assert ask("set") == b"true"
    assert all(ask("get") == b"v\0w" for _ in range(8)), "by all workers and loops"
    assert {ask("incr") for _ in range(20)} == {str(n).encode() for n in range(1, 21)}, "none is lost"
    assert ask("incr", n=-0.5) == b"19.5"
    assert ask("get") == b"v\0w", "a counter is apart"
    assert ask("del") == b"none" and ask("incr") == b"1"
    assert ask("brief") == b"x"
    until(lambda: ask("later") == b"none", "it to expire")


def test_metrics(weir):
    w = weir(conf("counter hits; gauge depth 'How deep.';", top="threads 1;", request="""
        metric.add("hits") metric.add("hits", 2) metric.set("depth", 7) metric.add("depth", -1)"""))
    for _ in range(3):
        assert fetch(w.http).status == 200
    w.wait_metric("weir_lua_hits", 9, function="f")
    w.wait_metric("weir_lua_depth", 6, function="f")


def test_log_levels(weir):
    w = weir("error_log stderr level=debug; " + conf(request="""
        log.error("e", nil, true, 1.5) log.warn({} ~= nil) log.info("line\\nbreak %d") log.debug() print("p", 1)"""))
    fetch(w.http)
    for level, text in (("error", "e nil true 1.5"), ("warn", "true"), ("info", r"line.*break %d"), ("info", "p 1")):
        w.wait_log(rf"{level} +\[function lua f [^\]]*\] {text}\n")


def test_log_fields(weir):
    """The members of a last table, by name; whatever they are."""
    w = weir(conf(request="""
        log.warn("slow", 1, {path = request.path, ms = 12.5, ok = true, [7] = "a b", nothing = nil})
        log.info({}) log.info({only = 1}) log.info("table", {}, "first")
        local many = {} for i = 1, 100 do many["n" .. i] = i end log.info("many", many)"""))
    fetch(w.http, "/a/b")
    w.wait_log(r'warn  \[function lua f [^\]]*\] slow 1 7="a b" ms=12\.5 ok=true path=/a/b\n')
    w.wait_log(r"\]  only=1\n")
    w.wait_log(r"\] table table: 0x\w+ first\n")
    assert len(re.findall(r" n\d+=\d+", w.wait_log(r"\] many n.*\n")[0].group(0))) == 32


# ---------------------------------------------------------------- bodies


def body_conf(words="", route="", **code):
    return conf(words, "upstream u { server @backend@; }", f"body max=off; {route} proxy u;", **code)


def echo(q):
    return answer(q.body, fields=[("x-cl", q.get("content-length", "-")), ("etag", '"1"')])


DATA = (b"abcdefghijklmnopqrstuvwxyz" * 40000)[:1_000_000]


@pytest.mark.parametrize("how", ["buffer", "rewrite"])
@pytest.mark.parametrize("size", [0, 1, 100_000, 1_000_000])
def test_bodies_are_rewritten(weir, server, how, size):
    s = server(echo)
    w = weir(body_conf(f"body {how}; body_max 2m;", request_body="""
        local data, last = ...
        return data:upper()""", response_body="""
        local data, last = ...
        emit(data) emit("")
        if last then emit("the end") end"""), backend=s)
    r = fetch(w.http, method="POST", body=DATA[:size])
    assert s.last().body == DATA[:size].upper()
    assert r.body == DATA[:size].upper() + b"the end" and "etag" not in r
    if how == "buffer":
        assert s.last().get("content-length") == str(size)


def test_bodies_are_read(weir, server):
    s = server(echo)
    w = weir(body_conf("body read;", init="n = {}", request_body="""
        local data, last = ...
        n[request.id] = (n[request.id] or 0) + #data""", response_body="""
        if request.path == "/emit" then emit("x") end
        if request.path == "/skip" then body_mode("skip") end
        n[request.id] = n[request.id] + #(...)""", log="""
        log.info("saw", n[request.id]) n[request.id] = nil"""), backend=s)
    r = fetch(w.http, "/read", method="POST", body=DATA)
    assert r.body == DATA and r.get("etag") == '"1"'
    w.wait_log("saw 2000000\n")
    assert fetch(w.http, "/skip", method="POST", body=DATA).body == DATA
    assert 1_000_000 < int(w.wait_log(r"saw (\d+)\n", 2)[1].group(1)) < 1_100_000
    try:
        assert fetch(w.http, "/emit", method="POST", body=DATA).status == 503
    except (EOFError, ConnectionResetError):
        pass  # the head had gone
    w.wait_log(r"weir\.conf:\d+: emit: ")


def test_a_body_grows_past_a_slow_reader(weir, server, connect):
    s = server(answer(b"x" * 1000))
    w = weir(body_conf("body rewrite; state_memory 4m; instructions 100000000;", use="timeout=60s memory=1m", response_body="""
        local data, last = ...
        local big = data:rep(1000)
        for i = 1, 50 do emit(big) end
        return last and "end" or \"\""""), backend=s)
    c = connect(w.http).send(raw.request())
    head = c.head()
    assert head.status == 200
    time.sleep(0.3)
    assert fetch(w.http, method="HEAD").status == 200, "others are served"
    size, end = len(c.buffer), c.buffer
    while not end.endswith(b"\r\n0\r\n\r\n"):
        c.buffer = b""
        size += c.fill()
        end = (end + c.buffer)[-100:]
    assert end.endswith(b"end\r\n0\r\n\r\n") and 50_000_003 < size < 50_100_000


def test_a_body_decides(weir, server):
    s = server(echo)
    w = weir(body_conf("", request="""
        if request.headers["content-type"] ~= "application/json" then body_mode("skip") end""", request_body="""
        local doc = json.decode(...)
        if type(doc) ~= "table" or not doc.user then return respond(400, "a user is wanted") end
        if doc.user == "slow" then sleep(0.1) end
        request.headers["x-user"] = doc.user
        doc.seen = true
        return json.encode(doc)"""), backend=s)
    js = [("content-type", "application/json")]
    assert fetch(w.http, method="POST", body=b"text").body == b"text"
    r = fetch(w.http, method="POST", body=b"{}", fields=js)
    assert (r.status, r.body, len(s.requests)) == (400, b"a user is wanted", 1)
    for user in ("al", "slow"):
        r = fetch(w.http, method="POST", body=f'{{"user":"{user}"}}'.encode(), fields=js)
        assert (json.loads(r.body), s.last().get("x-user")) == ({"user": user, "seen": True}, user)


def test_a_body_that_is_too_large(weir, server):
    w = weir(body_conf("body_max 10k;", request_body="return (...)"), backend=server(echo))
    assert fetch(w.http, method="POST", body=b"x" * 10_000).status == 200
    assert fetch(w.http, method="POST", body=b"x" * 20_000).status == 413
    w.reload(body_conf("body_max 100m; state_memory 1m;", request_body="return (...)"))
    assert fetch(w.http, method="POST", body=b"x" * 3_000_000).status == 503
    w.wait_log(r"not enough memory \(state_memory=\)")
    assert fetch(w.http, method="POST", body=b"x" * 10_000).status == 200


@pytest.mark.parametrize("how", ["buffer", "rewrite"])
def test_a_body_that_fails(weir, server, how):
    w = weir(body_conf(f"body {how};", response_body="local data, last = ... if last then error('no') end"),
             backend=server(answer(b"x" * 100_000)))
    if how == "buffer":
        assert fetch(w.http).status == 503
    else:
        with pytest.raises((EOFError, ConnectionResetError)):
            fetch(w.http)
    w.wait_log(r"weir\.conf:\d+: no\n")


def test_both_bodies_at_once(weir, server, connect):
    """A server that answers while the request's body still comes: each direction has its own coroutine."""
    def script(c):
        head = c.head()
        c.send(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")
        for _ in range(20):
            c.send(b"5\r\nhello\r\n")
            time.sleep(0.01)
        c.framed_body(head)
        c.server.requests.append(head)
        c.send(b"0\r\n\r\n")
    s = server(script=script)
    w = weir(body_conf("body rewrite;", request_body="sleep(0.01) return (...):upper()",
                       response_body="sleep(0.01) return (...):upper()"), backend=s)
    c = connect(w.http)
    c.send(raw.request(method="POST", fields={"transfer-encoding": "chunked"}))
    for _ in range(20):
        c.send(b"3\r\nabc\r\n")
        time.sleep(0.01)
    c.send(b"0\r\n\r\n")
    assert c.response().body == b"HELLO" * 20
    assert s.requests[0].body == b"ABC" * 20


def test_trailers(weir, server):
    s = server(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ntrailer: x-sum\r\n\r\n1\r\nx\r\n0\r\nx-sum: 1\r\n\r\n")
    w = weir(body_conf("body rewrite;", response_body="""
        local data, last = ...
        if last then response.trailers["x-sum"] = response.trailers["x-sum"] .. "+1" end"""), backend=s)
    r = fetch(w.http, fields={"te": "trailers"})
    assert r.trailers in ([("x-sum", "1+1")], []) and r.body == b"x"


# ---------------------------------------------------------------- waiting


def test_redis_values(weir, redis):
    w = weir(conf("redis main; redis main as again;", redis_top(), request="""
        redis("DEL", "l", "k")
        redis("RPUSH", "l", "a", 2, 3.5)
        local l = redis("LRANGE", "l", 0, -1)
        local m = redis.again("MGET", "k", "none")
        local ok, why = pcall(redis, "INCR", "l")
        respond(200, json.encode({ l = l, nothing = tostring(redis("GET", "none")), set = redis("SET", "k", "a\\0b"),
            k = #redis.again("GET", "k"), hole = m, n = redis("STRLEN", "k"), ok = ok, why = why,
            many = redis("ECHO", ("x"):rep(100000)):len() }))"""), redis=redis())
    r = fetch(w.http)
    assert r.status == 200, w.log()
    said = json.loads(r.body)
    why = said.pop("why")
    assert re.search(r"weir\.conf:\d+: redis: WRONGTYPE", why)
    assert said == {"l": ["a", "2", "3.5"], "nothing": "nil", "set": "OK", "k": 3, "hole": [False, False], "n": 3,
                    "ok": False, "many": 100000}


def test_redis_wants_words(weir, redis):
    w = weir(conf("redis main;", redis_top(), request="""
        local _, none = pcall(redis)
        local _, bad = pcall(redis, "GET", nil)
        local many = {}
        for i = 1, 200 do many[i] = "w" .. i end
        respond(200, none .. "\\n" .. bad .. "\\n" .. redis("DEL", unpack(many)))"""), redis=redis())
    lines = fetch(w.http).body.decode().splitlines()
    assert lines[0].endswith("redis: a command is wanted") and lines[1].endswith("word 2 is a nil, not a string")
    assert lines[2] == "0"


@pytest.mark.parametrize("trouble", ["gone", "stalled"])
@pytest.mark.parametrize("policy", ["fail_closed", "fail_open"])
def test_redis_is_away(weir, redis, trouble, policy):
    r = redis()
    w = weir(conf("redis main;", redis_top("connect=200ms command=100ms"), use=f"on_error={policy}", request="""
        if request.path == "/caught" then
            local ok, why = pcall(redis, "GET", "k")
            return respond(200, tostring(ok) .. why)
        end
        redis("GET", "k")"""), redis=r)
    assert fetch(w.http).status == 200
    r.kill() if trouble == "gone" else r.pause()
    assert fetch(w.http).status == (503 if policy == "fail_closed" else 200)
    w.wait_log(r"weir\.conf:\d+: redis: ")
    caught = fetch(w.http, "/caught")
    assert caught.status == 200 and caught.body.startswith(b"false")


def http_top():
    return "upstream auth { server @auth@; retry off; timeout connect=1s response=300ms; }"


def test_http(weir, server):
    def auth(q):
        return answer(f"{q.method} {q.target} {q.get('x-many')} {q.body.decode()}".encode(), status="201 Created",
                      fields=[("X-Reply", "1"), ("X-REPLY", "2")])
    s = server(auth)
    w = weir(conf("upstream auth; upstream auth as again;", http_top(), request="""
        local a = http("/plain?x=1")
        local b = http.again({ path = "/p", method = "POST", body = "data", timeout = 2,
            headers = { ["X-Many"] = {"a", 2}, ["X-One"] = 1.5 } })
        respond(200, table.concat({ a.status, a.body, a.headers["x-reply"], b.body }, "|"))"""), auth=s)
    r = fetch(w.http)
    assert r.body.decode() == "201|GET /plain?x=1 None |1|POST /p a, 2 data", w.log()
    assert s.last().get("x-one") == "1.5"


@pytest.mark.parametrize("call, says", [
    ("http()", "http: a path or a table is wanted"),
    ("http({ path = {} })", "http: path is a table, not a string"),
    ("http({ headers = 1 })", "http: headers is a number, not a table"),
    ("http({ headers = { x = {{}} } })", "http: a header's value is a table, not a string"),
    ("http({ headers = { 'x' } })", "http: a header's name is a number, not a string"),
    ("http({ timeout = 'x' })", "http: timeout must be a number up to 3600"),
    ("http({ path = '/a b' })", "http: "),
    ("http({ headers = { connection = 'close' } })", "http: "),
    ("http({ path = '/big', max_body = 100 })", "http: "),
    ("http('/slow')", "http: "),
])
def test_http_that_fails(weir, server, call, says):
    def auth(q):
        if q.target == "/slow":
            time.sleep(1)
        return answer(b"x" * 1000)
    w = weir(conf("upstream auth;", http_top(), request=f"""
        if request.path == "/caught" then
            local ok, why = pcall(function() {call} end)
            return respond(200, tostring(ok) .. why)
        end
        {call}"""), auth=server(auth))
    r = fetch(w.http, "/caught")
    assert r.status == 200 and r.body.startswith(b"false") and says in r.body.decode()
    assert fetch(w.http).status == 503
    w.wait_log(r"weir\.conf:\d+: " + re.escape(says))


def test_a_client_that_leaves_while_http_waits(weir, server, connect):
    go = threading.Event()
    s = server(lambda q: go.wait(5 * SLOW) and answer(b"x"))
    w = weir(conf("upstream auth; counter ended; counter on;",
                  "upstream auth { server @auth@; timeout response=10s; }", request="""
        if request.path ~= "/quick" then http("/x") metric.add("on") end""", log="metric.add('ended')"), auth=s)
    gone = [connect(w.http).send(raw.request(target="/")) for _ in range(5)]
    until(lambda: len(s.requests) == 5, "them to wait")
    for c in gone:
        c.reset()
    until(lambda: w.metric("weir_lua_ended") == 5, "on_log of all")
    go.set()
    assert fetch(w.http, "/quick").status == 200
    assert w.metric("weir_lua_on") == 0


def test_sleep_lets_others_through(weir, connect):
    w = weir(conf(request="""
        local n = request.args.n
        if n then sleep(0.3) return respond(200, n) end"""))
    waiting = [connect(w.http).send(raw.request(target=f"/?n={n}")) for n in range(20)]
    for _ in range(20):
        assert fetch(w.http).body == b"ok"
    assert [c.response().body for c in waiting] == [str(n).encode() for n in range(20)]


def test_a_thousand_wait_at_once(weir, connect):
    w = weir(conf(top="threads 2;", use="timeout=30s", request="""
        local mine = request.args.n
        if mine then
            store.incr("waiting")
            while not store.get("go") do sleep(0.05) end
            return respond(200, mine)
        end
        if request.path == "/go" then store.set("go", "1") end
        respond(200, tostring(store.incr("waiting", 0)))"""))
    waiting = [connect(w.http).send(raw.request(target=f"/?n={n}")) for n in range(1000)]
    until(lambda: fetch(w.http, "/").body == b"1000", "all to wait", 20)
    fetch(w.http, "/go")
    assert [int(c.response().body) for c in waiting] == list(range(1000))


def test_a_client_that_leaves_while_it_waits(weir, connect, redis):
    r = redis()
    w = weir(conf("redis main; counter ended; counter on;", redis_top("connect=1s command=1s"), use="timeout=5s", request="""
        if request.path == "/quick" then return respond(200, tostring(store.incr("waiting", 0))) end
        store.incr("waiting")
        if request.path == "/sleep" then sleep(3) metric.add("on") end
        if request.path == "/redis" then redis("BLPOP", "none", 0) metric.add("on") end""",
                  log="""metric.add("ended")"""), redis=r)
    for path in ("/sleep", "/redis"):
        gone = [connect(w.http).send(raw.request(target=path)) for _ in range(20)]
        until(lambda: fetch(w.http, "/quick").body == str(20 * (1 + (path == "/redis"))).encode(), "them to wait")
        for c in gone:
            c.reset()
    until(lambda: w.metric("weir_lua_ended") >= 42, "on_log of all")
    assert w.metric("weir_lua_on") == 0
    assert fetch(w.http, "/quick").status == 200


def test_timeout_while_it_waits(weir):
    w = weir(conf(use="timeout=100ms", request="sleep(10)", response="response.headers['x-after'] = '1'"))
    r = fetch(w.http)
    assert (r.status, r.get("x-after")) == (503, "1"), "the next hook is a call of its own"
    w.wait_metric("weir_local_replies_total", 1, reason="function_timeout")
    w.reload(conf(use="timeout=100ms on_error=fail_open", request="sleep(10)"))
    assert fetch(w.http).body == b"ok"


def test_nothing_waits_in_the_log(weir):
    w = weir(conf(log="sleep(1)"))
    assert fetch(w.http).status == 200
    w.wait_log(r"weir\.conf:\d+: sleep: nothing can wait here")


def test_a_response_hook_that_waits(weir, server):
    s = server(answer(b"body" * 1000))
    w = weir(conf(top="upstream u { server @backend@; }", action="proxy u;",
                  response="sleep(0.1) response.headers['x-late'] = '1'"), backend=s)
    r = fetch(w.http)
    assert (r.get("x-late"), r.body) == ("1", b"body" * 1000)


def test_a_reload_while_it_waits(weir, connect):
    def version(n):
        return conf(request=f"""
            if request.path == "/wait" then
                store.incr("in")
                while not store.get("go") do sleep(0.02) end
            elseif request.path == "/go" then store.set("go", "1")
            elseif request.path == "/in" then return respond(200, tostring(store.incr("in", 0))) end
            respond(200, "version {n}")""")
    w = weir(version(1))
    old = [connect(w.http).send(raw.request(target="/wait")) for _ in range(10)]
    until(lambda: fetch(w.http, "/in").body == b"10", "them to wait")
    w.reload(version(2))
    assert fetch(w.http, "/go").body == b"version 2"
    assert {c.response().body for c in old} == {b"version 1"}


# ---------------------------------------------------------------- misbehaving


@pytest.mark.parametrize("code", [
    "while true do end",
    "while true do pcall(function() while true do end end) end",
    "local function f() return f() end f()",
    "while true do pcall(error, 'x') end",
    "local function loop() while true do end end while true do xpcall(loop, loop) end",
    "while true do local s = ('x'):rep(10) .. math.random() end",
    "repeat until false",
])
def test_endless_loops_are_interrupted(weir, code):
    w = weir(conf("instructions 1000000;", request=f"if request.path == '/loop' then\n{code}\nend"))
    for _ in range(3):
        assert fetch(w.http, "/loop").status == 503
        assert fetch(w.http, "/").status == 200
    w.wait_log(r"weir\.conf:\d+: interrupted: more instructions than instructions= allows", 3)
    w.wait_metric("weir_lua_limited_total", 3, function="f", limit="instructions")


def test_the_budget_is_each_calls_own(weir):
    """A thousand calls may take more than one, and one that waited goes on with what it had left."""
    w = weir(conf("instructions 100000;", request="""
        local n = tonumber(request.args.n or 1)
        for i = 1, n do for j = 1, 10000 do end sleep(0) end"""))
    for _ in range(30):
        assert fetch(w.http, "/?n=2").status == 200
    assert fetch(w.http, "/?n=50").status == 503


def test_others_are_served_while_one_loops(weir, connect):
    w = weir(conf("instructions 20000000;", top="threads 2;", request="if request.path == '/loop' then while true do end end"))
    for c in [connect(w.http).send(raw.request(target="/loop")) for _ in range(4)]:
        assert c.response().status == 503
    assert fetch(w.http).status == 200


def test_memory_of_a_state(weir):
    w = weir(conf("state_memory 1m; instructions 100000000;", "threads 1;", init="kept = {} n = 0", request="""
        if request.path == "/once" then
            local t = {}
            while true do t[#t + 1] = ("x"):rep(1000) .. #t end
        elseif request.path == "/string" then
            return respond(200, tostring(#("x"):rep(1e9)))
        elseif request.path == "/caught" then
            return respond(200, tostring(pcall(string.rep, "x", 1e9)))
        elseif request.path == "/leak" then
            for i = 1, 100 do kept[#kept + 1] = ("x"):rep(100) .. #kept end
        end
        n = n + 1
        respond(200, tostring(n))"""))
    assert fetch(w.http).body == b"1"
    for path in ("/once", "/string") * 3:
        assert fetch(w.http, path).status == 503
    assert fetch(w.http, "/caught").body == b"false"
    w.wait_log(r"weir\.conf:\d+: not enough memory \(state_memory=\)", 6)
    w.wait_metric("weir_lua_limited_total", 6, function="f", limit="state_memory")
    assert fetch(w.http).body == b"2", "the state lives on: what was in the way was garbage"
    until(lambda: fetch(w.http, "/leak").status == 503, "the state to be full")
    w.wait_log(r"holds \d+ bytes of state_memory=1048576: it is replaced by a new one")
    assert fetch(w.http).body == b"1", "a new state"


def test_memory_of_a_state_with_calls_that_wait(weir, connect):
    """The old state lives until they have ended."""
    w = weir(conf("state_memory 512k; instructions 100000000;", "threads 1;", init="kept = {} version = 'old'", request="""
        if request.path == "/wait" then
            local mine = ("y"):rep(100)
            while not store.get("go") do sleep(0.02) end
            return respond(200, mine)
        elseif request.path == "/leak" then
            while true do kept[#kept + 1] = ("x"):rep(100) .. #kept end
        elseif request.path == "/go" then store.set("go", "1") end
        respond(200, tostring(#kept))"""))
    waiting = [connect(w.http).send(raw.request(target="/wait")) for _ in range(10)]
    assert fetch(w.http).body == b"0"
    assert fetch(w.http, "/leak").status == 503
    w.wait_log("it is replaced by a new one")
    assert fetch(w.http, "/go").body == b"0"
    assert {c.response().body for c in waiting} == {b"y" * 100}
    assert fetch(w.http, "/leak").status == 503
    assert fetch(w.http).body == b"0"


def test_states_are_apart(weir):
    w = weir("module lua; threads 1; listen 127.0.0.1:@http@; host * {\n"
             + "".join(f"route /{n} {{ function lua {{ {block(init='n = 0', request='n = n + 1 respond(200, tostring(n))')} }}"
                       " respond 500; }\n" for n in "ab") + "}")
    assert [fetch(w.http, "/a").body for _ in range(3)] == [b"1", b"2", b"3"]
    assert fetch(w.http, "/b").body == b"1"


def test_two_functions_of_one_route_and_two_threads(weir, server):
    s = server(answer(b"x"))
    one = "request.headers['x-n'] = (request.headers['x-n'] or '') .. '%s' sleep(0.001) " \
          "if request.headers['x-n'] ~= '%s' then error(request.headers['x-n']) end"
    w = weir(f"module lua; threads 2; upstream u {{ server @backend@; }} listen 127.0.0.1:@http@; host * {{ route / {{ "
             f"function lua <<A\n{one % ('a', 'a')}\nA\nfunction lua <<A\n{one % ('b', 'ab')}\nA\nproxy u; }} }}", backend=s)
    seen = collections.Counter()

    def some():
        for _ in range(50):
            seen[fetch(w.http).status] += 1
    threads = [threading.Thread(target=some) for _ in range(4)]
    for t in threads:
        t.start()
    for t in threads:
        t.join(60 * SLOW)
    assert seen == {200: 200}
    assert {q.get("x-n") for q in s.requests} == {"ab"}


def test_jit(weir):
    w = weir(conf(use="jit=on", request="""
        local sum = 0
        for i = 1, 3e7 do sum = sum + i % 7 end
        sleep(0.01)
        request.headers["x-a"] = tostring(sum)
        respond(200, request.headers["x-a"])"""))
    for _ in range(3):
        assert fetch(w.http).body == b"89999997"


@pytest.mark.parametrize("code, use", [("while true do end", "jit=on"),
                                       ("(('x'):rep(100000)):find(('.-'):rep(10) .. 'y')", "")])
def test_what_no_count_ends_the_watchdog_does(weir, connect, code, use):
    """An endless loop of compiled code; a single call of the library."""
    w = weir(conf(use=use, top="threads 2;", request=f"if request.path == '/loop' then {code} end"))
    w.deaths_expected = True
    connect(w.http).send(raw.request(target="/loop"))
    w.wait_log("loop . of worker 0 has not turned for 1 s: in module lua: on_request of function lua f .* on route /; "
               "it is in .*", seconds=10)
    assert fetch(w.http).status == 200, "by the other loop"
    w.wait_deaths(1, 20)
    assert fetch(w.http).status == 200
    assert w.metric("weir_function_strikes_total", module="lua") == 1


def test_deep_recursion(weir):
    w = weir(conf(request="""
        local function down(n) return 1 + down(n + 1) end
        if request.path == "/json" then return respond(200, tostring(json.decode(("["):rep(100)))) end
        if request.path == "/down" then down(1) end"""))
    assert fetch(w.http, "/down").status == 503
    w.wait_log(r"weir\.conf:\d+: stack overflow")
    assert fetch(w.http, "/json").body == b"nil"
    assert fetch(w.http, "/").status == 200
