"""Mistakes: all of them in one run, with file, line, column, the line, a caret and a suggestion."""
import re

import pytest

from kit import SLOW
from kit.certs import Authority

OK = "listen 127.0.0.1:@http@; upstream u { server 127.0.0.1:1; }\n"
HOST = "host * { route / { respond 200; } }"

# name, text (after OK), line within it, column, words of the message
CASES = [
    ("unknown", "lissten 127.0.0.1:1;", 1, 1, ["lissten", "did you mean", "listen"]),
    ("unknown_in_route", "host * {\n  route / { respnd 200; }\n}", 2, 13, ["respnd", "respond"]),
    ("unknown_key", "timeout clent_head=1s;", 1, 9, ["clent_head", "client_head"]),
    ("not_here", "host * { listen 127.0.0.1:1; }", 1, 10, ["listen"]),
    ("no_end", "worker_x", 1, None, []),
    ("no_semicolon", "threads 2", 1, None, [";"]),
    ("open_block", "host * {", 1, None, ["}"]),
    ("open_quote", 'host * { route / { respond 200 "x; } }', 1, 32, ["\""]),
    ("bad_escape", 'host * { route / { respond 200 "\\q"; } }', 1, None, ["\\q"]),
    ("extra_brace", HOST + "\n}", 2, 1, ["}"]),
    ("bad_time", "timeout connect=5parsecs;", 1, 17, ["5parsecs"]),
    ("bad_size", "body max=8q;", 1, 10, ["8q"]),
    ("bad_number", "threads many;", 1, 9, ["many"]),
    ("bad_switch", "host * { route / { upgrade maybe; respond 200; } }", 1, 28, ["maybe"]),
    ("twice", "threads 1;\nthreads 2;", None, None, ["threads"]),
    ("listen_twice", "listen 127.0.0.1:@http@;", 1, 8, ["127.0.0.1"]),
    ("bad_address", "listen 127.0.0.300:80;", 1, 8, ["127.0.0.300"]),
    ("bad_port", "listen 127.0.0.1:99999;", 1, 8, ["99999"]),
    ("no_upstream", "host * { route / { proxy uu; } }", 1, 26, ["uu", "did you mean", "u"]),
    ("no_servers", "upstream x { }", 1, 10, ["server"]),
    ("no_action", "host * { route / { } }", 1, None, ["route"]),
    ("two_actions", "host * { route / { respond 200; redirect 302 /x; } }", 1, 33, ["redirect"]),
    ("bad_regex", "host * { route ~ '^/(a' { respond 200; } }", 1, None, ["regex"]),
    ("bad_status", "host * { route / { respond 99; } }", 1, 28, ["99"]),
    ("unknown_variable", "host * { route / { respond 200 $clent_ip; } }", 1, None, ["clent_ip", "client_ip"]),
    ("unknown_capture", "host * { route ~ '^/(?<id>a)' { respond 200 $ids; } }", 1, None, ["ids"]),
    ("capture_number", "host * { route ~ '^/(a)' { respond 200 $2; } }", 1, None, ["2"]),
    ("unset_environment", "user ${env:WEIR_SURELY_UNSET};", 1, None, ["WEIR_SURELY_UNSET"]),
    ("unreadable_file", "host * { route / { respond 200 ${file:/none/such}; } }", 1, None, ["/none/such"]),
    ("include_missing", "include missing.conf;", 1, 9, ["missing.conf"]),
    ("bad_balance", "upstream x { balance rnd; server 127.0.0.1:1; }", 1, 22, ["rnd"]),
    ("bad_weight", "upstream x { server 127.0.0.1:1 weight=0; }", 1, 40, ["weight"]),
    ("bad_header", "host * { route / { when header 'a b'; respond 200; } }", 1, None, ["a b"]),
    ("bad_cidr", "trusted_proxies 10.0.0.0/33;", 1, 17, ["10.0.0.0/33"]),
    ("bad_module", "module missing;", 1, 8, ["missing"]),
    ("function_unknown", "host * { route / { function nope; respond 200; } }", 1, 29, ["nope"]),
    ("store_unknown", "module ratelimit; host * { route / { function ratelimit rate=1/s key=$client_ip "
     "store=none; respond 200; } }", 1, None, ["none"]),
    ("schema", "module ratelimit; host * { route / { function ratelimit rat=1/s; respond 200; } }", 1, None,
     ["rat", "rate"]),
    ("schema_rate", "module ratelimit; host * { route / { function ratelimit rate=fast key=x store=local; "
     "respond 200; } }", 1, None, ["fast"]),
    ("schema_block", "module headers; host * { function headers { sett request A b; } route / { respond 200; } }",
     1, None, ["sett", "set"]),
    ("tls_without_certificate", "listen 127.0.0.1:1 tls;", 1, None, ["certificate"]),
    ("error_log_off", "error_log off;", 1, 11, ["off"]),
    ("limit_twice", "module ratelimit; limit l { rate 1/s; key x; store local; } "
     "limit l { rate 1/s; key x; store local; }", 1, None, ["l"]),
    ("user_unknown", "user surely_nobody_here;", 1, 6, ["surely_nobody_here"]),
    ("control_character", "threads \x01;", 1, None, []),
    # settled names that belong to later work are refused with a clear message
    ("h2", "listen 127.0.0.1:1 { protocols h2 http/1.1; }", 1, 32, ["h2"]),
    ("h2_without_tls", "upstream x { server 127.0.0.1:1; protocol h2; }", 1, 43, ["h2c"]),
    ("h2c_with_tls", "upstream x { server 127.0.0.1:1; tls; protocol h2c; }", 1, 48, ["h2"]),
    ("http2", "listen 127.0.0.1:1 { http2 max_streams=0; }", 1, None, ["max_streams"]),
    ("zone", "upstream x { server 127.0.0.1:1 zone=a; }", 1, 33, ["zone"]),
]


@pytest.mark.parametrize("text,line,column,words", [c[1:] for c in CASES], ids=[c[0] for c in CASES])
def test_mistake(weir, text, line, column, words):
    w = weir(OK + text, start=False)
    done = w.command("-t")
    out = done.stdout + done.stderr
    assert done.returncode == 1, out
    m = re.search(rf"(?m)^{re.escape(str(w.conf))}:(\d+):(\d+): (.*)\n(.*)\n( *)\^", out)
    assert m, f"no file:line:column with a caret:\n{out}"
    # The harness writes its own lines on line 1, OK is line 2.
    if line:
        assert int(m.group(1)) == line + 2, out
    if column:
        assert int(m.group(2)) == column, out
    assert m.group(4).strip().replace("?", "\x01") in w.conf.read_text().replace("?", "\x01")
    for word in words:
        assert word in out, out


def test_all_at_once(weir):
    w = weir(OK + "lissten x;\ntimeout connect=x;\nhost * { route / { respnd 200; } }\nthreads many;", start=False)
    done = w.command("-t")
    found = re.findall(r"(?m)^\S+weir\.conf:(\d+):", done.stdout + done.stderr)
    assert done.returncode == 1
    assert set(found) == {"3", "4", "5", "6"}


def test_mistakes_in_certificates(weir):
    """Each where it was written, and all of them, though a context fails at its first."""
    ca = Authority()
    cert, key = ca.cert("a.test")
    other, other_key = ca.cert("b.test")
    w = weir(f"""
listen 127.0.0.1:1 tls {{
    certificate {other_key} key={key};
    certificate {cert} key={cert};
    certificate {other} key={key};
    ticket_keys short.key;
}}
listen 127.0.0.1:2 tls {{
    certificate {cert} key={key};
    certificate {other} key={key};
    client_certificate required
        ca={key};
}}
listen 127.0.0.1:3 tls {{
    certificate {cert} key={key};
    ciphers NONE;
}}
upstream u {{
    server 127.0.0.1:1;
    tls ca={key};
}}
""" + HOST, start=False, files={"short.key": "k" * 79})
    done = w.command("-t")
    found = re.findall(r"(?m)^\S+weir\.conf:(\d+):(\d+): ", done.stdout + done.stderr)
    assert done.returncode == 1
    # Where values begin, behind "certificate " or "key=".
    at = [(4, 17), (5, 17 + len(str(cert)) + 5), (6, 17 + len(str(other)) + 5), (7, 17), (13, 12),
          (17, 13), (21, 5)]
    assert sorted((int(a), int(b)) for a, b in found) == at, done.stdout + done.stderr


def test_in_an_included_file(weir):
    w = weir(OK + "include conf.d/*.conf;\n" + HOST, start=False,
             files={"conf.d/a.conf": "threads 2;\n", "conf.d/b.conf": "\nbody maxx=1;\n"})
    done = w.command("-t")
    assert re.search(r"b\.conf:2:6: ", done.stdout + done.stderr), done.stdout + done.stderr


def test_start_is_refused_and_nothing_is_left(weir):
    w = weir(OK + "lissten x;", start=False)
    process = w.spawn()
    assert process.wait(10 * SLOW) == 1
    assert "lissten" in w.log()
    assert not (w.dir / "control.sock").exists()
    assert not (w.dir / "weir.pid").exists()
    w.process = None


def test_what_is_right_is_right(weir):
    w = weir(OK + HOST, start=False)
    assert w.command("-t").returncode == 0


def test_features_are_off(weir):
    """A feature may be named and off: what switches it can come from the environment."""
    w = weir(OK + """redis r { server 127.0.0.1:1; tls ${env:WEIR_NOT_GIVEN:-off}; }
        upstream x { server 127.0.0.1:1; tls off; sticky off; eject off; health_check off; keepalive off;
            slow_start off; retry off; timeout request=off; access_log off; }
        max_connections off; drain_delay off;\n""" + HOST, start=False)
    done = w.command("-T", check=True)
    assert not re.search(r"(?m)^\s*(tls|sticky|health_check)\b", done.stdout), done.stdout
    for text in ("tls off verify=on", "tls of", "tls vrfy=on", "sticky", "sticky cookie=a off"):
        w.conf.write_text(w.conf.read_text().replace("tls off;", text + ";", 1))
        assert w.command("-t").returncode == 1, text
        w.conf.write_text(w.conf.read_text().replace(text + ";", "tls off;", 1))


LANGUAGE = r"""
listen 127.0.0.1:@http@;
include "conf.d/*.conf";   # nothing there
log_format mine "a \"quoted\" $status";
host a.test {
    route = /url { redirect 302 http://x/?next=/a;  }
    route = /raw { respond 200 '$host \n'; }
    route = /quoted { respond 200 "a\tb\\ \"$host\" $$x # no comment"; }
    route = /braces { respond 200 ${host}x; }
    route = /env { respond 200 "${env:WEIR_GIVEN}"; }
    route = /default { respond 200 "${env:WEIR_NOT_GIVEN:-default value}"; }
    route = /file { respond 200 "${file:body.txt}"; }
    route = /here {
        respond 200 <<END
line ; { } # one
line two
END
    }
}
"""


@pytest.mark.parametrize("target,body", [
    ("/raw", "a.test \\n"),
    ("/quoted", 'a\tb\\ "a.test" $x # no comment'),
    ("/braces", "a.testx"),
    ("/env", "from; the { environment"),
    ("/default", "default value"),
    ("/file", "what; the } file says"),
    ("/here", "line ; { } # one\nline two\n"),
])
def test_language(weir, target, body):
    from kit.raw import fetch

    w = weir(LANGUAGE, files={"body.txt": "what; the } file says"},
             env={"WEIR_GIVEN": "from; the { environment"})
    assert fetch(w.http, target).body.decode() == body
    assert fetch(w.http, "/url").get("location") == "http://x/?next=/a"


def test_effective_configuration_is_a_configuration(weir):
    """What -T prints is read again and means the same."""
    w = weir(OK + "threads 1; timeout connect=250ms; body max=9m;\nhost a.test *.b.test { route ~ '^/(?<x>.)$' "
             "{ when method GET; proxy u weight=2; } route / { respond 200 \"a b\"; } }", start=False)
    done = w.command("-T", check=True)
    for word in ("250ms", "9m", "a.test", "*.b.test", "client_head", "(?<x>.)"):
        assert word in done.stdout, done.stdout
    w.conf.write_text(done.stdout)
    again = w.command("-T", check=True)
    assert again.stdout == done.stdout


@pytest.mark.parametrize("args,code,word", [
    (["-v"], 0, "weir"), (["-V"], 0, "module interface"), (["-h"], 0, "-c"), (["-?"], 1, "-h"),
    (["-s", "dance"], 1, "dance"), (["-c", "/none/such.conf", "-t"], 1, "/none/such.conf"),
])
def test_command_line(weir, args, code, word):
    w = weir(OK, start=False)
    done = w.command(*args, conf=False)
    assert (done.returncode != 0) == (code != 0)
    assert word in done.stdout + done.stderr


def test_prefix(weir):
    w = weir(OK + 'host * { error_page 404 file=pages/x.html; route / { respond 200; } }', start=False,
             files={"elsewhere/pages/x.html": "page"})
    assert w.command("-t").returncode == 1
    assert w.command("-p", str(w.dir / "elsewhere"), "-t").returncode == 0
