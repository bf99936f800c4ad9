/*
 * A token as it was sent (RFC 7515 compact form), and what its claims must say (RFC 7519).
 *
 * The difficulty: everything before the signature has been verified is a stranger's text.  So of
 * the header only what names the key is read, what it does not know it refuses, and the payload is
 * not looked at until the signature is genuine.
 */
#include "jwt.h"

#define MALFORMED "the token is malformed"
#define KEPT_US   INT64_C(3600000000) /* the longest that a token is remembered */

const char *const jwt_algorithms[JWT_ALGORITHMS] = {
        "HS256", "HS384", "HS512", "RS256", "RS384", "RS512", "PS256",
        "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA",
};

static int is_allowed(uint32_t allowed, weir_str algorithm)
{
        for (size_t i = 0; i < JWT_ALGORITHMS; i++)
                if (weir_eq(algorithm, weir_bytes(jwt_algorithms[i], strlen(jwt_algorithms[i]))))
                        return (allowed >> i) & 1;
        return 0;
}

/* The part up to the next dot; absent when there is none. */
static weir_str part(weir_str *rest)
{
        const char *dot = memchr(rest->p, '.', rest->n);
        weir_str one = weir_bytes(dot ? rest->p : NULL, dot ? (size_t)(dot - rest->p) : 0);

        if (dot != NULL)
                *rest = weir_bytes(dot + 1, rest->n - one.n - 1);
        return one;
}

int jwt_split(weir_str text, struct jwt_parts *p)
{
        weir_str rest = text;

        p->header = part(&rest);
        if (p->header.p == NULL)
                return 0;
        p->payload = part(&rest);
        if (p->payload.p == NULL || memchr(rest.p, '.', rest.n) != NULL)
                return 0;
        p->signature = rest;
        p->input = weir_bytes(text.p, p->header.n + 1 + p->payload.n);
        return 1;
}

const char *jwt_header(const weir_value *header, uint32_t allowed, struct jwt_token *token)
{
        const weir_value *id = weir_get(header, WEIR_STR("kid"));

        token->algorithm = weir_get_str(header, WEIR_STR("alg"));
        if (token->algorithm.p == NULL || (id != NULL && id->type != WEIR_V_STRING))
                return MALFORMED;
        if (id != NULL)
                token->id = id->str;
        /* RFC 7515 4.1.11: what must be understood and is not */
        if (weir_get(header, WEIR_STR("crit")) != NULL || weir_get(header, WEIR_STR("b64")) != NULL)
                return "the token uses an extension";
        return is_allowed(allowed, token->algorithm) ? NULL
                                                     : "the token's algorithm is not allowed";
}

const char *jwt_read(weir_task *t, const struct jwt_conf *c, weir_str text, struct jwt_token *token)
{
        struct jwt_parts parts;

        *token = (struct jwt_token){.payload = {NULL, 0}};
        if (text.n > (size_t)c->max_token)
                return "the token is too long";
        if (!jwt_split(text, &parts))
                return MALFORMED;
        token->input = parts.input;
        token->payload = parts.payload;
        token->signature = weir->decode(t, WEIR_BASE64URL, parts.signature);
        if (token->signature.p == NULL)
                return MALFORMED;
        return jwt_header(weir->json_parse(t, weir->decode(t, WEIR_BASE64URL, parts.header)),
                          c->allowed, token);
}

/* ------------------------------------------------------------------ claims */

static int is_listed(const weir_list *list, weir_str value)
{
        WEIR_EACH (weir_str, s, *list)
                if (weir_eq(*s, value))
                        return 1;
        return 0;
}

/* One string, or one of several (RFC 7519 4.1.3). */
static int is_for_us(const struct jwt_conf *c, const weir_value *aud)
{
        if (aud == NULL)
                return 0;
        if (aud->type == WEIR_V_STRING)
                return is_listed(&c->audience, aud->str);
        for (size_t i = 0; aud->type == WEIR_V_ARRAY && i < aud->n; i++)
                if (aud->elem[i]->type == WEIR_V_STRING &&
                    is_listed(&c->audience, aud->elem[i]->str))
                        return 1;
        return 0;
}

/* 1: a number of seconds since 1970; 0: absent; -1: something else. */
static int date_of(const weir_value *claims, weir_str name, double *seconds)
{
        const weir_value *v = weir_get(claims, name);

        if (v == NULL)
                return 0;
        if (v->type != WEIR_V_INTEGER && v->type != WEIR_V_NUMBER)
                return -1;
        *seconds = v->number;
        return 1;
}

static const char *check_times(const struct jwt_conf *c, const weir_value *claims, int64_t wall,
                               int64_t *until)
{
        double now = (double)wall / 1e6, leeway = (double)c->leeway / 1e6;
        double exp = 0, nbf = 0;
        int has_exp = date_of(claims, WEIR_STR("exp"), &exp);
        int has_nbf = date_of(claims, WEIR_STR("nbf"), &nbf);

        *until = wall + KEPT_US;
        if (has_exp < 0 || has_nbf < 0)
                return MALFORMED;
        if (has_exp == 0 && c->exp == 0)
                return "the token does not expire";
        if (has_exp && !(now < exp + leeway))
                return "the token has expired";
        if (has_nbf && !(now >= nbf - leeway))
                return "the token is not valid yet";
        if (has_exp && exp + leeway < (double)*until / 1e6)
                *until = (int64_t)((exp + leeway) * 1e6);
        return NULL;
}

const char *jwt_claims(const struct jwt_conf *c, const weir_value *claims, int64_t wall,
                       int64_t *until)
{
        const char *why;

        if (claims == NULL || claims->type != WEIR_V_OBJECT)
                return MALFORMED;
        why = check_times(c, claims, wall, until);
        if (why != NULL)
                return why;
        if (c->issuer.n > 0 && !is_listed(&c->issuer, weir_get_str(claims, WEIR_STR("iss"))))
                return "the token is from another issuer";
        if (c->audience.n > 0 && !is_for_us(c, weir_get(claims, WEIR_STR("aud"))))
                return "the token is for another audience";
        return NULL;
}

const char *jwt_check(weir_task *t, const struct jwt_conf *c, struct jwt_token *token,
                      int64_t *until)
{
        token->claims = weir->json_parse(t, weir->decode(t, WEIR_BASE64URL, token->payload));
        return jwt_claims(c, token->claims, weir->wall_us(), until);
}
