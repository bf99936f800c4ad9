/*
 * Tokens: any text is judged; one that is taken is exactly what was sent, in one way only, names an
 * algorithm that is allowed, and is good for no longer than it says.
 *
 * The first byte says whether the input is a token as it was sent, or a header, claims and a
 * signature with a newline between, of which one is made: else chance would find no base64.
 */
#include "../unit/modules/pure_host.h"

#include "../../modules/jwt_token.c"

static const weir_str issuers[] = {{"a", 1}}, audiences[] = {{"b", 1}, {"c", 1}};

static weir_str encoded(struct arena *a, str s)
{
        str out = crypto_base64(a, s, true);

        return weir_bytes(out.p, out.n);
}

static str until_newline(str *rest)
{
        const char *end = rest->n ? memchr(rest->p, '\n', rest->n) : NULL;
        str part = str_of(rest->p, end ? (size_t)(end - rest->p) : rest->n);

        *rest = str_from(*rest, part.n + (end != NULL));
        return part;
}

static weir_str assembled(struct arena *a, str rest)
{
        weir_str v[3];
        char *out, *to;

        v[0] = encoded(a, until_newline(&rest));
        v[1] = encoded(a, until_newline(&rest));
        v[2] = encoded(a, rest);
        to = out = arena_alloc(a, v[0].n + v[1].n + v[2].n + 2);
        for (int i = 0; i < 3; i++) {
                if (i > 0)
                        *to++ = '.';
                if (v[i].n > 0)
                        to = (char *)memcpy(to, v[i].p, v[i].n) + v[i].n;
        }
        return weir_bytes(out, (size_t)(to - out));
}

static void judge(struct arena *a, const struct jwt_conf *c, weir_str text)
{
        struct jwt_token token;
        weir_str signature, again;
        int64_t until = 0;
        double exp = 0;

        if (jwt_read(pure_task(a), c, text, &token) != NULL)
                return;
        CHECK(text.n <= (size_t)c->max_token && is_allowed(c->allowed, token.algorithm));
        CHECK(token.input.p == text.p && token.input.n < text.n && text.p[token.input.n] == '.');
        CHECK(token.payload.p + token.payload.n == token.input.p + token.input.n);
        signature = weir_bytes(text.p + token.input.n + 1, text.n - token.input.n - 1);
        again = encoded(a, str_of(token.signature.p, token.signature.n));
        CHECK(weir_eq(again, signature)); /* there is no other way to write it */
        if (jwt_check(pure_task(a), c, &token, &until) != NULL)
                return;
        CHECK(until > PURE_WALL_US - c->leeway && until <= PURE_WALL_US + KEPT_US);
        CHECK(c->exp != 0 || date_of(token.claims, WEIR_STR("exp"), &exp) == 1);
        CHECK(c->issuer.n == 0 ||
              weir_eq(weir_get_str(token.claims, WEIR_STR("iss")), WEIR_STR("a")));
        CHECK(c->audience.n == 0 || weir_get(token.claims, WEIR_STR("aud")) != NULL);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
        struct arena *a = arena_new(0);
        struct jwt_conf c = {.max_token = 8192, .leeway = 10000000};
        str in;

        if (size >= 1) {
                c.allowed = data[0] & 2 ? 1 : (1u << JWT_ALGORITHMS) - 1;
                c.exp = data[0] & 4 ? 1 : 0;
                if (data[0] & 8)
                        c.issuer = (weir_list){issuers, WEIR_COUNT(issuers)};
                if (data[0] & 16)
                        c.audience = (weir_list){audiences, WEIR_COUNT(audiences)};
                in = str_of(data + 1, size - 1);
                judge(a, &c, data[0] & 1 ? assembled(a, in) : weir_bytes(in.p, in.n));
        }
        arena_free(a);
        return 0;
}
