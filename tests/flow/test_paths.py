"""One form of the path for matching; the server gets what the client wrote, unless there were dot
segments; what decoders disagree on is refused."""
import pytest

from kit.raw import request

CONF = """
listen 127.0.0.1:@http@;
upstream u { server @backend@; }
host * {
    route ~ '^/guarded(/|$)' { respond 403 "guarded"; }
    route /shown { respond 200 "$path"; }
    route / {
        function headers { set response X-Path $path; }
        proxy u;
    }
}
module headers;
"""

# raw target, the form of its path, what the server gets (None: as written)
FORMS = [
    ("/", "/", None),
    ("/a", "/a", None),
    ("/a/", "/a/", None),
    ("/%61", "/a", None),
    ("/%7Euser/%2D%5f", "/~user/-_", None),
    ("/a%2fb", "/a%2Fb", None),
    ("/a%5cb", "/a%5Cb", None),
    ("/a%20b", "/a%20b", None),
    ("/%c3%a4", "/%C3%A4", None),
    ("/a%3bb", "/a%3Bb", None),
    ("/a%25b", "/a%25b", None),
    ("/a%252e%252e", "/a%252e%252e", None),
    ("/a!$&'()*+,=:@", "/a!$&'()*+,=:@", None),
    ("//a", "/a", None),
    ("/a//b", "/a/b", None),
    ("/a///", "/a/", None),
    ("/a;x=1/b;y", "/a/b", None),
    ("/a;x", "/a", None),
    ("/a%2e", "/a.", None),
    ("/a..", "/a..", None),
    ("/...", "/...", None),
    ("/.a", "/.a", None),
    ("/a/./b", "/a/b", "/a/b"),
    ("/a/.", "/a/", "/a/"),
    ("/a/../b", "/b", "/b"),
    ("/a/b/..", "/a/", "/a/"),
    ("/a/..", "/", "/"),
    ("/..", "/", "/"),
    ("/../../a", "/a", "/a"),
    ("/a/%2e%2e/b", "/b", "/b"),
    ("/a/.%2E/b", "/b", "/b"),
    ("/a/%2e/b", "/a/b", "/a/b"),
    ("/%61/../%62", "/b", "/%62"),
    ("/x%2fy/../b", "/b", "/b"),
    ("/a/..;x/b", "/b", "/b"),
    ("/a?b=../%2e%2e//;", "/a", None),
    ("/a/../b?c=../d", "/b", "/b?c=../d"),
    ("/a?%00", "/a", None),
    ("/a?b?c", "/a", None),
]


@pytest.fixture(scope="module")
def s(server_for_all):
    return server_for_all()


@pytest.fixture(scope="module")
def w(weir_for_all, s):
    return weir_for_all(CONF, backend=s)


@pytest.mark.parametrize("target,form,sent", FORMS, ids=[c[0] for c in FORMS])
def test_form(w, s, connect, target, form, sent):
    r = connect(w.http).send(request(target=target)).response()
    assert (r.status, r.get("x-path")) == (200, form)
    assert s.last().target == (sent or target)


AMBIGUOUS = [
    "/..%2fa", "/a%2f..%2fb", "/a/..%2F", "/..%5ca", "/a%5c..", "/a/%2e%2e%2fb", "/%2e%2e%5cb",
    "/a%2f%2e%2e", "/a%2f./b", "/a%2f.", "/.%2fa", "/a/..;%2fb",
    "/a%00", "/%01", "/a%1Fb", "/%7f", "/a%0d%0ab", "/a%0A", "/%09",
    "/a%", "/a%2", "/a%zz", "/a%2x", "/%u0041", "/%%41",
]


@pytest.mark.parametrize("target", AMBIGUOUS)
def test_ambiguous(w, s, connect, target):
    count = len(s.requests)
    before = w.metric("weir_local_replies_total", reason="ambiguous_path")
    assert connect(w.http).send(request(target=target)).response().status == 400
    w.wait_metric("weir_local_replies_total", before + 1, reason="ambiguous_path")
    assert len(s.requests) == count


# A backslash is no character of a target at all; whoever lets it pass must not see a slash in it.
@pytest.mark.parametrize("target", ["/..\\a", "/a\\..\\b", "/a/..\\"])
def test_backslash_with_dots(w, s, connect, target):
    count = len(s.requests)
    assert connect(w.http).send(request(target=target)).response().status == 400
    assert len(s.requests) == count


@pytest.mark.parametrize("target", [
    "/guarded", "//guarded", "/./guarded", "/x/../guarded", "/%67uarded", "/guarded;a", "/;a/guarded",
    "/%2e/guarded", "/x/%2e%2e/guarded", "/x/..;/guarded", "/guarded/", "/guarded//x", "/guarded/.",
    "/guarded/x/..", "///x//..//guarded", "/guarded?x", "http://a.test/guarded",
    "http://a.test//%67uarded",
])
def test_no_way_round_a_guarded_route(w, s, connect, target):
    count = len(s.requests)
    assert connect(w.http).send(request(target=target)).response().status == 403
    assert len(s.requests) == count


def test_an_encoded_slash_is_no_segment_end(w, connect):
    assert connect(w.http).send(request(target="/guarded%2fx")).response().status == 200


@pytest.mark.parametrize("target,path", [("/shown/%7ea//b;c/../d", "/shown/~a/d"),
                                         ("/shown", "/shown"), ("/x/../shown/%2f", "/shown/%2F")])
def test_local_answers_see_it_too(w, connect, target, path):
    assert connect(w.http).send(request(target=target)).response().body.decode() == path
