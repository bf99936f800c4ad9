/*
 * Keys: of the configuration's lines, and of JWKS documents.
 *
 * The difficulty: a document holds keys for other purposes and of kinds that are not known here;
 * they are passed over, but a document of which no key is left is none.
 */
#include "jwt.h"

#include <stdatomic.h>
#include <stdlib.h>

#define TRIES_MAX  8 /* signatures that one token may cost */
#define SECRET_MIN 32

static _Atomic uint64_t serials;

static struct jwt_set *set_new(size_t most)
{
        struct jwt_set *s = calloc(1, sizeof(*s) + most * sizeof(s->key[0]));

        if (s != NULL)
                s->serial = atomic_fetch_add_explicit(&serials, 1, memory_order_relaxed) + 1;
        return s;
}

void jwt_set_free(void *set)
{
        struct jwt_set *s = set;

        for (size_t i = 0; s != NULL && i < s->n; i++) {
                weir->key_free(s->key[i].key);
                free(s->key[i].id);
        }
        free(s);
}

/* Takes the key.  0: there is no room, or no memory. */
static int add(struct jwt_set *s, weir_key *key, weir_str id)
{
        char *copy = s->n < JWT_KEYS_MAX ? malloc(id.n + 1) : NULL;

        if (copy == NULL) {
                weir->key_free(key);
                return 0;
        }
        if (id.n > 0)
                memcpy(copy, id.p, id.n);
        s->key[s->n++] = (struct jwt_key){key, copy, id.n};
        return 1;
}

/* ------------------------------------------------------------------ JWKS */

static void add_jwks(weir_task *t, struct jwt_set *s, weir_str text)
{
        const weir_value *keys = weir_get(weir->json_parse(t, text), WEIR_STR("keys"));

        for (size_t i = 0; keys != NULL && keys->type == WEIR_V_ARRAY && i < keys->n; i++) {
                const weir_value *one = keys->elem[i];
                weir_key *key = one->type == WEIR_V_OBJECT ? weir->key_new(t, one->str) : NULL;
                if (key != NULL)
                        add(s, key, weir_get_str(one, WEIR_STR("kid")));
        }
}

struct jwt_set *jwt_set_of_jwks(weir_task *t, weir_str text)
{
        struct jwt_set *s = set_new(JWT_KEYS_MAX);

        if (s == NULL)
                return NULL;
        add_jwks(t, s, text);
        weir->sha256(text, s->digest);
        if (s->n > 0)
                return s;
        jwt_set_free(s);
        return NULL;
}

/* ------------------------------------------------------------------ the configuration's */

/* What is neither PEM nor JSON is a secret, without the end of its last line.  RFC 7518 3.2: HS256
 * wants 32 bytes, and less is good for nothing. */
static weir_key *key_of_secret(weir_conf *conf, weir_str text)
{
        weir_str coded;

        while (text.n > 0 && (text.p[text.n - 1] == '\n' || text.p[text.n - 1] == '\r'))
                text.n--;
        if (text.n < SECRET_MIN) {
                weir->conf_error(conf, text.p,
                                 "is neither PEM nor JSON, and a secret has at least %d bytes "
                                 "(RFC 7518 3.2)",
                                 SECRET_MIN);
                return NULL;
        }
        coded = weir->encode(conf, WEIR_BASE64URL, text);
        return weir->key_new(conf,
                             weir->format(conf, "{\"kty\":\"oct\",\"k\":\"%.*s\"}", WEIR_S(coded)));
}

/* 0: an error is reported. */
static int add_line(weir_conf *conf, struct jwt_set *s, const struct jwt_key_line *line)
{
        weir_str text = line->text.text, id = line->id;
        int json = text.n > 0 && text.p[0] == '{';
        weir_key *key;

        if (!json && memmem(text.p, text.n, "-----BEGIN ", 11) == NULL) {
                key = key_of_secret(conf, text);
                return key != NULL && add(s, key, id);
        }
        key = weir->key_new(conf, text);
        if (key == NULL) {
                weir->conf_error(conf, text.p,
                                 "is neither a PEM public key nor a JWK to verify with (RSA of "
                                 "2048 bits and more, P-256, P-384, P-521, Ed25519, oct)");
                return 0;
        }
        if (id.p == NULL && json)
                id = weir_get_str(weir->json_parse(conf, text), WEIR_STR("kid"));
        return add(s, key, id);
}

static int add_document(weir_conf *conf, struct jwt_set *s, const struct jwt_conf *c)
{
        size_t before = s->n;

        if (c->jwks.text.p == NULL)
                return 1;
        add_jwks(conf, s, c->jwks.text);
        if (s->n == before)
                weir->conf_error(conf, &c->jwks,
                                 "it is no JWKS document with a key to verify with");
        return s->n > before;
}

struct jwt_set *jwt_set_of_conf(weir_conf *conf, const struct jwt_conf *c)
{
        struct jwt_set *s = set_new(JWT_KEYS_MAX);
        int good = s != NULL;

        if (good && c->keys.n > JWT_KEYS_MAX) {
                weir->conf_error(conf, &c->keys, "there are more than %d keys", JWT_KEYS_MAX);
                good = 0;
        }
        if (good)
                good = add_document(conf, s, c);
        WEIR_EACH (struct jwt_key_line, line, c->keys)
                if (s != NULL && !add_line(conf, s, line))
                        good = 0;
        if (good)
                return s;
        jwt_set_free(s);
        return NULL;
}

/* ------------------------------------------------------------------ verifying */

/* A key with another name is not asked; one without a name always is. */
int jwt_set_verify(const struct jwt_set *set, const struct jwt_token *token)
{
        int tries = 0, named = 0;

        for (size_t i = 0; set != NULL && i < set->n && tries < TRIES_MAX; i++) {
                const struct jwt_key *k = &set->key[i];
                weir_str id = weir_bytes(k->id, k->n_id);
                if (token->id.p != NULL && id.n > 0 && !weir_eq(id, token->id))
                        continue;
                named += token->id.p == NULL || id.n > 0;
                tries++;
                if (weir->key_verify(k->key, token->algorithm, token->input, token->signature))
                        return JWT_GENUINE;
        }
        return named > 0 ? JWT_FORGED : JWT_NO_KEY;
}
