"""Signed tokens: who gets in with which key, what is claimed, and the ways that forgers try."""
import base64
import hashlib
import hmac
import json
import re
import time

import pytest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa, utils

from kit import raw, until
from kit.raw import answer, fetch

SECRET = b"0123456789abcdef" * 4
HASHES = {"256": (hashes.SHA256(), hashlib.sha256), "384": (hashes.SHA384(), hashlib.sha384),
          "512": (hashes.SHA512(), hashlib.sha512)}
CURVES = {"ES256": ec.SECP256R1(), "ES384": ec.SECP384R1(), "ES512": ec.SECP521R1()}
ALGORITHMS = [f + n for f in ("HS", "RS", "PS", "ES") for n in HASHES] + ["EdDSA"]


def b64(data):
    return base64.urlsafe_b64encode(data if isinstance(data, bytes) else json.dumps(data).encode()).rstrip(b"=").decode()


def number(n, size=None):
    return b64(n.to_bytes(size or (n.bit_length() + 7) // 8, "big"))


class Keys:
    """A private key for each algorithm."""

    def __init__(self):
        self.rsa = rsa.generate_private_key(65537, 2048)
        self.ed = ed25519.Ed25519PrivateKey.generate()
        self.ec = {a: ec.generate_private_key(c) for a, c in CURVES.items()}

    def private(self, alg):
        return {"HS": SECRET, "RS": self.rsa, "PS": self.rsa, "ES": self.ec.get(alg), "Ed": self.ed}[alg[:2]]

    def pem(self, alg):
        return self.private(alg).public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo).decode()

    def jwk(self, of, **more):
        if of.startswith("HS"):
            return {"kty": "oct", "k": b64(SECRET), **more}
        public = self.private(of).public_key()
        if of == "EdDSA":
            return {"kty": "OKP", "crv": "Ed25519", **more, "x": b64(public.public_bytes(
                serialization.Encoding.Raw, serialization.PublicFormat.Raw))}
        n = public.public_numbers()
        if of.startswith("ES"):
            size = (public.curve.key_size + 7) // 8
            return {"kty": "EC", "crv": f"P-{public.curve.key_size}", "x": number(n.x, size), "y": number(n.y, size), **more}
        return {"kty": "RSA", "n": number(n.n), "e": number(n.e), **more}

    def sign(self, alg, data, key=None):
        key = key or self.private(alg)
        if alg.startswith("HS"):
            return hmac.new(key, data, HASHES[alg[2:]][1]).digest()
        if alg == "EdDSA":
            return key.sign(data)
        digest = HASHES[alg[2:]][0]
        if alg.startswith("ES"):
            size = (key.curve.key_size + 7) // 8
            r, s = utils.decode_dss_signature(key.sign(data, ec.ECDSA(digest)))
            return r.to_bytes(size, "big") + s.to_bytes(size, "big")
        pad = padding.PKCS1v15() if alg.startswith("RS") else padding.PSS(padding.MGF1(digest), digest.digest_size)
        return key.sign(data, pad, digest)

    def token(self, alg="HS256", claims=None, header=None, key=None, exp=60):
        claims = {**({"exp": int(time.time()) + exp} if exp else {}), **(claims or {})}
        data = f"{b64({'alg': alg, **(header or {})})}.{b64(claims)}"
        return f"{data}.{b64(self.sign(alg, data.encode(), key))}"


@pytest.fixture(scope="module")
def keys():
    return Keys()


def conf(words, action='respond 200 "hello $jwt_user";'):
    return (f"module jwt; listen 127.0.0.1:@http@; host * {{ route / {{ function jwt {{ name f; claim sub as user; {words} }} "
            f"{action} }} }}")


def bearer(token):
    return {"authorization": f"Bearer {token}"}


def refused(r, why=None):
    assert r.status == 401, r
    said = re.fullmatch(r'Bearer realm="api", error="invalid_token", error_description="([^"]*)"', r.get("www-authenticate"))
    assert said and (why is None or why in said.group(1)), r
    return said.group(1)


SECRET_LINE = f"key {SECRET.decode()};"


@pytest.mark.parametrize("alg", ALGORITHMS)
@pytest.mark.parametrize("form", ["pem", "jwk", "jwks"])
def test_every_algorithm(weir, keys, alg, form):
    """By the key in each form; and nothing that was signed with another algorithm."""
    if form == "pem":
        text = SECRET.decode() + "\n" if alg.startswith("HS") else keys.pem(alg)
    else:
        jwk = keys.jwk(alg, kid="1", use="sig")
        text = json.dumps({"keys": [{"kty": "odd"}, jwk]} if form == "jwks" else jwk)
    w = weir(conf("jwks ${file:key};" if form == "jwks" else "key ${file:key};"), {"key": text})
    for _ in range(2):
        assert fetch(w.http, fields=bearer(keys.token(alg, {"sub": "alice"}))).body == b"hello alice"
    same = {"HS": "HS", "RS": "RP", "PS": "RP"}.get(alg[:2], alg)
    for other in ALGORITHMS:
        r = fetch(w.http, fields=bearer(keys.token(other, {"sub": "alice"})))
        if other == alg or (same == {"HS": "HS", "RS": "RP", "PS": "RP"}.get(other[:2], other)):
            assert r.status == 200, other
        else:
            refused(r, "not genuine")
        if other != alg:
            token = keys.token(alg).split(".")
            refused(fetch(w.http, fields=bearer(".".join([b64({"alg": other}), *token[1:]]))), "not genuine")


def test_the_ways_of_forgers(weir, keys):
    w = weir(conf("key ${file:rsa}; key ${file:ec};"), {"rsa": keys.pem("RS256"), "ec": json.dumps(keys.jwk("ES256"))})
    good = keys.token("RS256", {"sub": "alice"})
    head, claims, sig = good.split(".")
    assert fetch(w.http, fields=bearer(good)).status == 200
    for none in ("none", "None", "NONE", "nOnE", "", "HS25", "RS256 ", "rs256"):
        refused(fetch(w.http, fields=bearer(f"{b64({'alg': none})}.{claims}.")), "not allowed")
        refused(fetch(w.http, fields=bearer(f"{b64({'alg': none})}.{claims}.{sig}")), "not allowed")
    # the public key as a secret
    for text in (keys.pem("RS256"), keys.pem("RS256").strip(), json.dumps(keys.jwk("ES256"))):
        for alg in ("HS256", "HS384", "HS512"):
            refused(fetch(w.http, fields=bearer(keys.token(alg, key=text.encode()))), "not genuine")
    # a key that comes along
    other = Keys()
    for header in ({"jwk": other.jwk("ES256")}, {"x5c": ["AAAA"]}, {"jku": "http://127.0.0.1/"}, {"kid": "../../dev/null"}):
        refused(fetch(w.http, fields=bearer(other.token("ES256", header=header))))
    # what is changed, cut or longer
    refused(fetch(w.http, fields=bearer(f"{head}.{b64({'sub': 'root', 'exp': 2 ** 40})}.{sig}")), "not genuine")
    refused(fetch(w.http, fields=bearer(good[:-4])))
    refused(fetch(w.http, fields=bearer(f"{head}.{claims}.")))
    refused(fetch(w.http, fields=bearer(good + "AAAA")))
    # r and s of nothing
    es = keys.token("ES256").rsplit(".", 1)[0]
    for sig in (b"\0" * 64, b"\xff" * 64, b"\0" * 63 + b"\1", b"", b"\0" * 32):
        refused(fetch(w.http, fields=bearer(f"{es}.{b64(sig)}")), "not genuine")
    # DER where both numbers are wanted
    der = keys.ec["ES256"].sign(es.encode(), ec.ECDSA(hashes.SHA256()))
    refused(fetch(w.http, fields=bearer(f"{es}.{b64(der)}")), "not genuine")


@pytest.mark.parametrize("header, why", [
    (b'{"alg":"HS256","crit":["exp"],"exp":1}', "extension"),
    (b'{"alg":"HS256","crit":[]}', "extension"),
    (b'{"alg":"HS256","b64":false}', "extension"),
    (b'{"alg":"none","alg":"HS256"}', "malformed"),
    (b'{"alg":"HS256","alg":"HS256"}', "malformed"),
    (b'{"alg":"HS256","kid":1}', "malformed"),
    (b'{"alg":["HS256"]}', "malformed"),
    (b'{}', "malformed"),
    (b'[]', "malformed"),
    (b'"HS256"', "malformed"),
    (b'{"alg":"HS256"', "malformed"),
    (b'{"alg":"HS256"}x', "malformed"),
    (b'{"alg":"HS256","x":' + b"[" * 100 + b"]" * 100 + b'}', "malformed"),
    (b"", "malformed"),
])
def test_headers_that_do_not_hold(weir, keys, header, why):
    w = weir(conf(SECRET_LINE))
    data = f"{b64(header)}.{b64({'exp': int(time.time()) + 60})}"
    refused(fetch(w.http, fields=bearer(f"{data}.{b64(keys.sign('HS256', data.encode()))}")), why)


@pytest.mark.parametrize("change", ["padding", "alphabet", "bits", "blank", "dots", "two", "five", "newline"])
def test_base64_is_strict(weir, keys, change):
    w = weir(conf(SECRET_LINE))
    good = keys.token("HS256", {"x": "???>>>"})
    head, claims, sig = good.split(".")
    last = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    bad = {"padding": good + "=", "alphabet": f"{head}.{claims}.+/{sig[2:]}", "blank": f"{head}.{claims}. {sig}",
           "bits": good[:-1] + last[last.index(good[-1]) ^ 1], "dots": good + ".", "two": f"{head}.{claims}",
           "five": good + ".AA.AA", "newline": f"{head}.{claims}\x0b.{sig}"}[change]
    assert fetch(w.http, fields=bearer(good)).status == 200
    r = fetch(w.http, fields=bearer(bad))
    assert r.status in (400, 401)
    if change not in ("newline",):
        refused(r)


def test_huge_tokens(weir, keys):
    w = weir(conf(SECRET_LINE + "max_token 1k;"))
    assert fetch(w.http, fields=bearer(keys.token(claims={"x": "y" * 500}))).status == 200
    refused(fetch(w.http, fields=bearer(keys.token(claims={"x": "y" * 1000}))), "too long")


def test_times(weir, keys):
    now = time.time()
    w = weir(conf(SECRET_LINE + "leeway 30s;"))

    def tried(**claims):
        return fetch(w.http, fields=bearer(keys.token(claims=claims, exp=None)))

    for claims in ({"exp": now + 60}, {"exp": int(now) - 10}, {"exp": now + 60, "nbf": now + 10},
                   {"exp": 2 ** 62}, {"exp": 1e300}, {"exp": now + 60, "iat": now + 1e6}):
        assert tried(**claims).status == 200, claims
    for claims, why in (({}, "does not expire"), ({"exp": now - 60}, "has expired"), ({"exp": 0}, "has expired"),
                        ({"exp": -2 ** 62}, "has expired"), ({"exp": now + 60, "nbf": now + 100}, "not valid yet"),
                        ({"exp": str(now + 60)}, "malformed"), ({"exp": None}, "malformed"),
                        ({"exp": now + 60, "nbf": "x"}, "malformed"), ({"exp": now + 60, "nbf": True}, "malformed"),
                        ({"exp": 2 ** 70}, "malformed")):
        refused(tried(**claims), why)
    w.reload(conf(SECRET_LINE + "exp optional;"))
    assert tried(sub="x").status == 200
    refused(tried(exp=now - 60), "has expired")


def test_a_token_that_was_remembered_expires(weir, keys):
    w = weir("threads 1; " + conf(SECRET_LINE + "leeway 0s;"))
    token = keys.token(exp=2)
    assert fetch(w.http, fields=bearer(token)).status == 200
    until(lambda: fetch(w.http, fields=bearer(token)).status == 401, "it to expire")
    assert w.metric("weir_jwt_total", function="f", result="accepted") == 1
    assert w.metric("weir_jwt_total", function="f", result="cached") > 1


def test_verified_tokens_are_remembered(weir, keys):
    w = weir("threads 1; " + conf("key ${file:k}; cache 4; claim n as n;", 'respond 200 "$jwt_user $jwt_n";'), {"k": keys.pem("ES256")})
    tokens = [keys.token("ES256", {"sub": f"u{i}", **({"n": i} if i % 2 else {})}) for i in range(8)]
    for _ in range(3):
        for i, token in enumerate(tokens):
            for _ in range(2):
                assert fetch(w.http, fields=bearer(token)).body == f"u{i} {i if i % 2 else ''}".encode()
            refused(fetch(w.http, fields=bearer(token[:-2] + "AA")))
    assert w.metric("weir_jwt_total", function="f", result="cached") >= 24
    assert w.metric("weir_jwt_total", function="f", result="refused") == 24
    w.file("k", keys.pem("ES512"))
    w.reload()
    refused(fetch(w.http, fields=bearer(tokens[0])), "not genuine")
    w.file("k", keys.pem("ES256"))
    w.reload("threads 1; " + conf("key ${file:k}; cache 0;"))
    for _ in range(3):
        assert fetch(w.http, fields=bearer(tokens[0])).status == 200
    assert w.metric("weir_jwt_total", function="f", result="accepted") >= 8 + 3


def test_issuer_and_audience(weir, keys):
    w = weir(conf(SECRET_LINE + "issuer https://a.test https://b.test; audience shop bank;"))
    good = {"iss": "https://a.test", "aud": "shop"}
    for change in ({}, {"iss": "https://b.test"}, {"aud": ["x", "bank"]}):
        assert fetch(w.http, fields=bearer(keys.token(claims={**good, **change}))).status == 200
    for change, why in (({"iss": "https://a.test/"}, "issuer"), ({"iss": ["https://a.test"]}, "issuer"), ({"iss": None}, "issuer"),
                        ({"aud": "shops"}, "audience"), ({"aud": []}, "audience"), ({"aud": [["shop"]]}, "audience"),
                        ({"aud": {"shop": 1}}, "audience"), ({"aud": None}, "audience")):
        refused(fetch(w.http, fields=bearer(keys.token(claims={**good, **change}))), why)
    refused(fetch(w.http, fields=bearer(keys.token(claims={"aud": "shop"}))), "issuer")
    refused(fetch(w.http, fields=bearer(keys.token(claims={"iss": "https://a.test"}))), "audience")
    w.reload(conf(SECRET_LINE))  # nobody has said who we are
    assert fetch(w.http, fields=bearer(keys.token(claims=good))).status == 200


def test_which_key(weir, keys):
    """By its name; one without a name is always tried."""
    others = Keys()
    files = {"jwks": json.dumps({"keys": [keys.jwk("RS256", kid="a", alg="RS256"), others.jwk("RS256", kid="b"),
                                          keys.jwk("ES256", kid="enc", use="enc"), {"kty": "RSA", "kid": "c"}]}),
             "pem": keys.pem("EdDSA"), "named": others.pem("EdDSA")}
    w = weir(conf("jwks ${file:jwks}; key ${file:pem}; key ${file:named} id=d;"), files)

    def tried(keys, alg, **header):
        return fetch(w.http, fields=bearer(keys.token(alg, header=header)))

    for signer, alg, header in ((keys, "RS256", {"kid": "a"}), (others, "RS256", {"kid": "b"}), (others, "PS512", {"kid": "b"}),
                                (keys, "RS256", {}), (others, "RS512", {}), (keys, "EdDSA", {}), (keys, "EdDSA", {"kid": "z"}),
                                (others, "EdDSA", {"kid": "d"}), (others, "EdDSA", {})):
        assert tried(signer, alg, **header).status == 200, (alg, header)
    for signer, alg, header, why in ((keys, "RS256", {"kid": "b"}, "not genuine"), (keys, "RS384", {"kid": "a"}, "not genuine"),
                                     (others, "RS256", {"kid": "c"}, "no key is known"), (others, "EdDSA", {"kid": "a"}, "not genuine"),
                                     (keys, "ES256", {"kid": "enc"}, "no key is known"), (keys, "RS256", {"kid": ""}, "no key is known")):
        refused(tried(signer, alg, **header), why)


def test_algorithms_can_be_fewer(weir, keys):
    w = weir(conf("key ${file:k}; algorithms PS256 ES256;"), {"k": keys.pem("RS256")})
    assert fetch(w.http, fields=bearer(keys.token("PS256"))).status == 200
    refused(fetch(w.http, fields=bearer(keys.token("RS256"))), "not allowed")
    refused(fetch(w.http, fields=bearer(keys.token("ES256"))), "not genuine")


def test_claims(weir, keys):
    claims = {"sub": "al\u00efce", "n": 7, "f": 1.5, "yes": True, "null": None, "list": ["a", 1, True, {"x": 1}, []],
              "deep": {"er": {"est": "x"}, "a.b": 1}, "https://x.test/roles": ["r1", "r2"], "deep.er": "whole"}
    names = {"n": "n", "f": "f", "yes": "yes", "null": "null", "list": "list", "deep": "deep", "deep.er": "er",
             "deep.er.est": "est", "https://x.test/roles": "roles", "none": "none", "sub.x": "subx", "deep.a.b": "ab"}
    w = weir(conf(SECRET_LINE + "".join(f"claim {c} as {v};" for c, v in names.items()),
                  'respond 200 "' + "|".join(f"$jwt_{v}" for v in ("user", *names.values())) + '";'))
    for _ in range(2):
        r = fetch(w.http, fields=bearer(keys.token(claims=claims)))
        assert r.body.decode() == ('al\u00efce|7|1.5|true||a 1 true {"x": 1} []|{"er": {"est": "x"}, "a.b": 1}|whole|x|r1 r2||||').rstrip("|") + "|||", r


@pytest.mark.parametrize("forward", ["", "forward on;"])
def test_places(weir, server, keys, forward):
    s = server(answer())
    w = weir("module headers; upstream u { server @backend@; } " + conf(
        SECRET_LINE + f"header Authorization; query token; cookie token; {forward}",
        "function headers { set request X-User $jwt_user; } proxy u;"), backend=s)
    t = keys.token(claims={"sub": "alice"})
    for target, fields, there, gone in (
            ("/", bearer(t), "authorization", None), (f"/?a=1&token={t}", {}, None, "/?a=1"),
            ("/", {"cookie": f"a=1; token={t}"}, "cookie", None)):
        assert fetch(w.http, target, fields={**fields, "x-user": "root"}).status == 200
        q = s.requests[-1]
        assert q.all("x-user") == ["alice"]
        if forward:
            assert t in q.target + q.get("authorization", "") + q.get("cookie", "")
        else:
            assert t not in q.target + q.get("authorization", "") + q.get("cookie", "")
            assert gone is None or q.target == gone
    r = fetch(w.http, fields=[("authorization", f"Bearer {t}")] * 2)
    assert r.status == 400 and r.get("www-authenticate") == 'Bearer realm="api", error="invalid_request"'
    r = fetch(w.http, fields={"authorization": "Basic eDp5"})
    assert (r.status, r.get("www-authenticate")) == (401, 'Bearer realm="api"')
    assert fetch(w.http, fields={"authorization": f"bearer  {t}"}).status == 200


def test_optional(weir, keys):
    w = weir(conf(SECRET_LINE + "optional on;"))
    assert fetch(w.http).body == b"hello "
    assert fetch(w.http, fields=bearer(keys.token(claims={"sub": "a"}))).body == b"hello a"
    refused(fetch(w.http, fields=bearer("x")))


@pytest.mark.parametrize("words, says", [
    ("", "it needs a key"),
    ("key short;", "at least 32 bytes"),
    ("key ${file:private};", "is neither a PEM public key nor a JWK"),
    ("key ${file:small};", "is neither a PEM public key nor a JWK"),
    ("key '{}';", "is neither a PEM public key nor a JWK"),
    ("jwks ${file:empty};", "no JWKS document"),
    ("jwks x;", "no JWKS document"),
    (SECRET_LINE + "algorithms none;", "is none of"),
    (SECRET_LINE + "scheme Bearer; cookie x;", "say header="),
    (SECRET_LINE + "claim sub user;", '"as" is expected'),
    (SECRET_LINE + 'realm "a\\nb";', "control character"),
    (SECRET_LINE + "key short;", "at least 32 bytes"),
])
def test_mistakes(weir, keys, words, says):
    private = keys.rsa.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8,
                                     serialization.NoEncryption()).decode()
    small = rsa.generate_private_key(65537, 1024).public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo).decode()
    text = f"module jwt; listen 127.0.0.1:1;\nhost * {{ route / {{ function jwt {{\n{words}\n}} respond 200; }} }}"
    w = weir(text, {"private": private, "small": small, "empty": json.dumps({"keys": [{"kty": "odd"}]})}, start=False)
    done = w.command("-t")
    assert done.returncode == 1 and says in done.stderr, done.stderr
    assert re.search(r"weir\.conf:[34]:\d+: ", done.stderr) and "PRIVATE" not in done.stderr


# ---------------------------------------------------------------- keys that a server publishes


class Issuer:
    """Publishes keys; what it answers can be changed."""

    def __init__(self, server, *sets, fields=()):
        self.fields = fields
        self.publish(*sets)
        self.server = server(lambda q: self.reply)

    def publish(self, *sets):
        """(keys, algorithm, kid)..."""
        self.reply = answer(json.dumps({"keys": [k.jwk(a, kid=i) for k, a, i in sets]}).encode(), fields=self.fields)

    @property
    def asked(self):
        return len(self.server.requests)


def published(words="", more="exp optional;", top=""):
    return (f"{top} upstream id {{ server @id@; timeout connect=1s; }} "
            + conf(f"jwks_upstream id {words}; {more}"))


def test_keys_are_fetched_once_for_all(weir, server, keys):
    s = Issuer(server, (keys, "RS256", "1"))
    w = weir(published("path=/keys?a=1 host=id.test", top="threads 2;"), id=s.server)
    q = s.server.wait()[0]
    assert (q.method, q.target, q.get("host"), q.get("accept")) == ("GET", "/keys?a=1", "id.test", "application/json")
    for _ in range(10):
        assert fetch(w.http, fields=bearer(keys.token("RS256", {"sub": "a"}, {"kid": "1"}))).body == b"hello a"
    assert s.asked == 1
    w.wait_metric("weir_jwt_fetches_total", 1, function="f", result="fetched")
    w.reload(published("path=/other", top="threads 2;"))
    until(lambda: s.asked == 2, "the new configuration to ask")
    assert s.server.last().target == "/other"


def test_keys_change(weir, server, keys):
    """A token with a new key is taken at once; one of a key that is gone is not, though it was remembered."""
    new = Keys()
    s = Issuer(server, (keys, "RS256", "1"))
    w = weir(published("retry=10ms"), id=s.server)
    old = bearer(keys.token("RS256", {"sub": "a"}, {"kid": "1"}))
    assert fetch(w.http, fields=old).status == 200
    s.publish((new, "ES256", "2"))
    assert fetch(w.http, fields=old).status == 200
    until(lambda: fetch(w.http, fields=bearer(new.token("ES256", {"sub": "b"}, {"kid": "2"}))).body == b"hello b",
          "the new key to be fetched for its token")
    refused(fetch(w.http, fields=old), "no key is known")


def test_keys_are_fetched_again(weir, server, keys):
    s = Issuer(server, (keys, "RS256", "1"))
    w = weir(published("refresh=100ms", top="threads 1;"), id=s.server)
    old = bearer(keys.token("RS256", header={"kid": "1"}))
    assert fetch(w.http, fields=old).status == 200
    until(lambda: s.asked >= 3, "it to be asked again")
    assert fetch(w.http, fields=old).status == 200
    assert w.metric("weir_jwt_total", function="f", result="cached") >= 1, "the same keys make nothing be forgotten"
    s.publish((Keys(), "RS256", "1"))
    until(lambda: fetch(w.http, fields=old).status == 401, "the new key to be in force")


@pytest.mark.parametrize("said, words, again", [
    (["no-store"], "min_refresh=50ms", True), (["no-cache", "max-age=3600"], "min_refresh=50ms", True),
    (["max-age=0"], "min_refresh=50ms", True), (["public, max-age=1"], "min_refresh=50ms", True),
    (["max-age=604800"], "max_refresh=50ms", True), (["max-age=604800"], "refresh=50ms", True),
    (["no-store"], "", False), (["no-store"], "min_refresh=1h refresh=1h", False), (["max-age=1"], "min_refresh=1h", False),
    (["max-age=3600"], "refresh=50ms max_refresh=1d", False), (["private"], "min_refresh=50ms", False),
], ids=str)
def test_the_server_says_how_long_its_keys_are_good(weir, server, keys, said, words, again):
    """Within what the configuration allows.  Another issuer, which says nothing, is the clock."""
    s = Issuer(server, (keys, "RS256", "1"), fields=[("Cache-Control", v) for v in said])
    clock = Issuer(server, (keys, "RS256", "1"))
    w = weir(f"""module jwt; upstream id {{ server @id@; }} upstream clock {{ server @clock@; }} listen 127.0.0.1:@http@;
        host * {{ route /c {{ function jwt {{ name c; jwks_upstream clock refresh=50ms; }} respond 200; }}
                 route / {{ function jwt {{ name f; jwks_upstream id retry=50ms {words}; }} respond 200; }} }}""",
             id=s.server, clock=clock.server)
    good = bearer(keys.token("RS256", header={"kid": "1"}))
    if again:
        until(lambda: s.asked >= 3, "it to be asked again")
    until(lambda: clock.asked >= 12, "time to pass")
    assert fetch(w.http, fields=good).status == 200
    assert again or s.asked == 1


def test_a_key_that_is_gone_is_taken_back_when_its_time_is_over(weir, server, keys):
    """The time since the answer was made counts, too."""
    s = Issuer(server, (keys, "RS256", "1"), fields=[("Cache-Control", "max-age=3600"), ("Age", "3599")])
    w = weir(published("refresh=1h min_refresh=50ms"), id=s.server)
    old = bearer(keys.token("RS256", header={"kid": "1"}))
    assert fetch(w.http, fields=old).status == 200
    s.publish((Keys(), "RS256", "2"))
    until(lambda: fetch(w.http, fields=old).status == 401, "the key to be taken back", 10)


@pytest.mark.parametrize("reply", [
    answer(b"x", status="500 No"), answer(b"x", status="404 No"), answer(b""), answer(b"{}"), answer(b'{"keys":[]}'),
    answer(b'{"keys":[{"kty":"odd"}]}'), answer(b'{"keys":[' + b"[" * 1000), answer(b" " * 200000), b"nonsense\r\n\r\n",
    answer(b'{"keys":{}}'), answer(status="302 Found", fields=[("Location", "/")]),
], ids=map(str, range(11)))
def test_what_cannot_be_read_changes_nothing(weir, server, keys, reply):
    s = Issuer(server, (keys, "RS256", "1"))
    w = weir(published("refresh=50ms retry=50ms"), id=s.server)
    good = bearer(keys.token("RS256", header={"kid": "1"}))
    assert fetch(w.http, fields=good).status == 200
    s.reply = reply
    until(lambda: w.metric("weir_jwt_fetches_total", function="f", result="failed") >= 2, "fetches to fail")
    assert fetch(w.http, fields=good).status == 200
    w.wait_log(r"function jwt f .*(the keys were not fetched|what was fetched is no JWKS document)")
    s.publish((keys, "RS256", "1"), (keys, "EdDSA", "2"))
    until(lambda: fetch(w.http, fields=bearer(keys.token("EdDSA", header={"kid": "2"}))).status == 200, "the new key")


def test_nobody_can_make_it_ask_for_ever(weir, server, keys):
    s = Issuer(server, (keys, "RS256", "1"))
    w = weir(published("retry=1h refresh=2h"), id=s.server)
    assert fetch(w.http, fields=bearer(keys.token("RS256", header={"kid": "1"}))).status == 200
    for i in range(50):
        refused(fetch(w.http, fields=bearer(keys.token("RS256", header={"kid": f"x{i}"}))), "no key is known")
    assert s.asked == 1


def test_before_there_are_keys(weir, server, keys):
    """Requests wait for keys that are under way; without any on_error decides."""
    late = {"hold": True}

    def script(stream):
        while True:
            stream.server.take(stream)
            until(lambda: not late["hold"], "the test to go on")
            stream.send(Issuer(lambda f: None, (keys, "RS256", "1")).reply)

    s = server(script=script)
    w = weir(published(), id=s)
    s.wait()
    good = bearer(keys.token("RS256", {"sub": "a"}, {"kid": "1"}))
    with raw.client(w.http) as c, raw.client(w.http) as gone:
        gone.send(raw.request(fields=good))
        c.send(raw.request(fields=good))
        assert c.silent(0.1)
        gone.reset()
        late["hold"] = False
        assert c.response().body == b"hello a"
    assert len(s.requests) == 1


def test_a_server_that_is_away(weir, server, keys):
    s = Issuer(server, (keys, "RS256", "1"))
    s.server.close()
    w = weir(published("retry=50ms"), id=s.server)
    good = bearer(keys.token("RS256", header={"kid": "1"}))
    assert fetch(w.http, fields=good).status == 503
    w.wait_log("there are no keys yet")
    s.server.start()
    until(lambda: fetch(w.http, fields=good).status == 200, "the keys to be fetched", 10)


def test_keys_of_both(weir, server, keys):
    s = Issuer(server, (keys, "RS256", "1"))
    s.server.close()
    w = weir(published("", SECRET_LINE), id=s.server)
    assert fetch(w.http, fields=bearer(keys.token(claims={"sub": "a"}))).body == b"hello a"
    refused(fetch(w.http, fields=bearer(keys.token("RS256", header={"kid": "1"}))))


@pytest.mark.parametrize("line, says", [
    ("jwks_upstream idd;", "there is no upstream idd"), ("jwks_upstream;", "needs upstream"),
    ("jwks_upstream id; jwks_upstream id;", "there can be one jwks_upstream"),
    ("jwks_upstream id refresh=1ms;", "refresh must be between"),
    ("jwks_upstream id min_refresh=2h max_refresh=1h;", "between min_refresh (7200000 ms) and max_refresh (3600000 ms)"),
    ("jwks_upstream id refresh=2h max_refresh=1h;", "refresh must be between"),
    ("jwks_upstream id refresh=1m min_refresh=2m;", "refresh must be between"),
    ("jwks_upstream id min_refresh=2d;", "refresh must be between"),
])
def test_mistakes_of_jwks_upstream(weir, line, says):
    w = weir(f"module jwt; listen 127.0.0.1:1; upstream id {{ server 127.0.0.1:1; }} host * {{ route / {{\nfunction jwt {{ {line} }} "
             "respond 200; } }", start=False)
    done = w.command("-t")
    assert done.returncode == 1 and says in done.stderr and "weir.conf:3:" in done.stderr, done.stderr
