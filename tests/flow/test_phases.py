"""Each call of the host in each place where a module runs: what it gives there, and that it is refused elsewhere."""
import re

import pytest

from kit import until
from kit.raw import answer, fetch
from test_functions import FROZEN, build, zoo  # noqa: F401 (a fixture)


ALWAYS = dict(alloc=1, dup=1, format=1, expand=1, local_set=0, local_get=1, local_del=0, local_update=0, loop_data=1,
              cell_get=1, encode=1, decode=1, json=1, match=1, replace=1, key=0, time_left=1)
NO_MESSAGE = dict(var_get=0, var_set=-3, var_del=-3, method=-3, status=-3, upstream=-3, where=-3, emit=-3, mode=-3)
NO_WAITING = dict(timer=-1, redis=-1, script=-1, http=-1, wait=-1, drain=-1, respond=-1)
NO_CREATE = dict(conf_name=0, conf_metric=0, conf_cell=0, conf_script=0)
SIDES = ["request", "response", "request trailers", "response trailers"]

# What each place gives; the fields of each of SIDES that can be changed there.
PLACES = {
    "create": ({**NO_MESSAGE, "loop_data": 0}, {}),
    "create, more": ({**NO_WAITING, **dict.fromkeys(NO_CREATE, 1)}, None),
    "loop_init": (NO_MESSAGE, {}),
    "loop_init, more": ({**NO_WAITING, **NO_CREATE}, None),
    "work": ({**NO_MESSAGE, "loop_data": 0}, {}),
    "on_request": (dict(var_get=1, var_set=0, var_del=0, method=0, status=-3, upstream=0, where=-2, emit=-3, mode=0),
                   {"request": 2, "response": 0}),  # those of a response to come are kept, and not found
    "on_request, more": ({**NO_CREATE, "drain": -1}, None),
    "on_request_body": (dict(var_get=1, var_set=0, var_del=0, method=-3, status=-3, upstream=-3, where=-2, emit=-3,
                             mode=-3), {"response": 0}),
    "on_response": (dict(var_get=1, var_set=0, var_del=0, method=-3, status=0, upstream=-3, where=-2, emit=-3, mode=0),
                    {"response": 2}),
    "on_response_body": (dict(var_get=1, var_set=0, var_del=0, method=-3, status=-3, upstream=-3, where=-2, emit=-3,
                              mode=-3), {}),
    "on_response_body, more": (dict(respond=-1), None),
    "on_log": (dict(var_get=1, method=-3, status=-3, upstream=-3, where=-3, emit=-3, mode=-3), {}),
    "on_log, more": ({**NO_WAITING, **NO_CREATE}, None),
}


def said(w, place):
    """What the function has said there last: ({call: result}, [{call: result} of each of SIDES])."""
    found = re.findall(rf"\] in {re.escape(place)}:((?: \w+=-?\d+)+)", w.log())
    assert found, (place, w.log())
    pairs = [(name, int(n)) for name, n in re.findall(r"(\w+)=(-?\d+)", found[-1])]
    fields = [p for p in pairs if p[0] in ("get", "at", "set", "add", "del")]
    return dict(p for p in pairs if p not in fields), [dict(fields[i:i + 5]) for i in range(0, len(fields), 5)]


@pytest.fixture
def asked(weir, server, zoo):  # noqa: F811
    path = build(FROZEN / "phases.c", zoo("null").with_name("phases.so"))
    w = weir(f"threads 1; module phases {path}; redis r {{ server 127.0.0.1:1; }} upstream u {{ server @s@; }} "
             "listen 127.0.0.1:@http@; host * { route / { function phases name=f store=r side=u log_lines=1000; "
             "proxy u; } }", s=server(answer(b"body")))
    r = fetch(w.http, method="POST", body=b"sent")
    assert (r.status, r.body) == (201, b"body")
    until(lambda: "in on_log, more" in w.log() and "in work" in w.log(), w.log)
    return w


def test_each_call_in_each_place(asked):
    w = asked
    for place, (results, changeable) in PLACES.items():
        calls, sides = said(w, place)
        expected = {**(ALWAYS if changeable is not None else {}), **results}
        assert {k: calls.get(k) for k in expected} == expected, place
        assert len(sides) == (4 if changeable is not None else 0)
        for side, got in zip(SIDES, sides):
            assert got["get"] == got["at"] == 0
            if side in (changeable or {}):
                assert (got["set"], got["add"], got["del"]) == (0, 0, changeable[side]), (place, side)
            else:
                assert (got["set"], got["add"]) == (-3, -3) and got["del"] <= 0, (place, side, got)
    w.wait_log(r"function phases f .* var_get\(\) was called in create, where it cannot be")
    assert w.metric("weir_worker_deaths_total") == 0
    assert w.metric("weir_function_calls_total", result="error") == 0
