/*
 * What the files of the module jwt share: an instance, its keys, a token.
 */
#ifndef MODULES_JWT_H
#define MODULES_JWT_H

#define WEIR_MODULE_SHARED
#include <weir/module.h>

#include "credential.h"

#define JWT_KEYS_MAX 64

/* HS RS PS ES, each with 256, 384 and 512; EdDSA.  Indices of the names and bits of a mask. */
enum { JWT_ALGORITHMS = 13 };
extern WEIR_HIDDEN const char *const jwt_algorithms[JWT_ALGORITHMS];

/* One key; belongs to its set. */
struct jwt_key {
        weir_key *key;
        char *id; /* "kid", "" when it has none */
        size_t n_id;
};

/* Malloc'd with its keys; immutable once made, so any thread may read it. */
struct jwt_set {
        uint64_t serial;    /* no two sets of an instance have the same */
        uint8_t digest[32]; /* of the document they come from */
        size_t n;
        struct jwt_key key[];
};

/* A line `key`. */
struct jwt_key_line {
        weir_text text;
        weir_str id;
};

/* A line `jwks_upstream`. */
struct jwt_source {
        weir_upstream *upstream;
        weir_str path, host;
        int64_t refresh, min_refresh, max_refresh, retry; /* but for retry 0: not given */
};

struct jwt_conf {
        weir_list keys; /* struct jwt_key_line */
        weir_text jwks;
        weir_list sources; /* struct jwt_source */
        weir_list algorithms, issuer, audience;
        weir_list claims; /* struct credential_field */
        int64_t leeway, max_token, cache;
        int32_t exp, optional, forward;
        weir_str header, scheme, cookie, query, realm;
        /* worked out by create */
        struct credential_places places;
        uint32_t allowed; /* mask of algorithms */
        weir_str challenge;
        struct jwt_set *own;     /* of the configuration */
        struct jwt_fetch *fetch; /* NULL: no jwks_upstream */
        weir_cell *cell;         /* struct jwt_set, what was fetched last */
        weir_metric *metric[4];
};

/* A token that has been read.  All of it lives as long as the task. */
struct jwt_token {
        weir_str input; /* what is signed: both parts with the dot between */
        weir_str payload, signature, algorithm, id;
        const weir_value *claims; /* known once the signature is genuine */
};

/* ---- keys (jwt_keys.c) ---- */

/* The keys of the configuration, perhaps none; NULL: it is wrong, and that is reported. */
struct jwt_set *jwt_set_of_conf(weir_conf *conf, const struct jwt_conf *c);
/* Those of a JWKS (RFC 7517 5) that can verify; NULL: it is none, or has no such key. */
struct jwt_set *jwt_set_of_jwks(weir_task *t, weir_str text);
void jwt_set_free(void *set); /* NULL: nothing */

enum { JWT_GENUINE, JWT_FORGED, JWT_NO_KEY };
int jwt_set_verify(const struct jwt_set *set, const struct jwt_token *token);

/* ---- keys of an upstream (jwt_fetch.c) ---- */

int jwt_fetch_create(weir_conf *conf, struct jwt_conf *c);        /* 0: an error is reported */
weir_err jwt_fetch_begin(weir_task *t, const struct jwt_conf *c); /* in loop_init */
/* Somebody named a key that is not known, and there is a jwks_upstream.  1: keys are being fetched,
 * wait until the count of fetches has changed; 0: they were not long ago. */
int jwt_fetch_early(weir_task *t, const struct jwt_conf *c);
uint64_t jwt_fetch_count(const struct jwt_conf *c);

/* ---- how long an answer is good (jwt_lifetime.c) ---- */

/* What Cache-Control says (max-age less the Age; no-store and no-cache: 0), in us; -1: nothing.
 * Pure. */
int64_t jwt_lifetime(const weir_kv *fields, size_t n);

/* ---- tokens (jwt_token.c) ---- */

/* header.payload.signature, as they were sent; input is what is signed.  Empty ones are found, too.
 */
struct jwt_parts {
        weir_str header, payload, signature, input;
};

/* Pure, the three of them.  0: there are not two dots. */
int jwt_split(weir_str text, struct jwt_parts *parts);
/* Algorithm and name of the key; header may be NULL or of any type.  NULL, or what is wrong. */
const char *jwt_header(const weir_value *header, uint32_t allowed, struct jwt_token *token);
/* As jwt_check, of claims that may be NULL or of any type. */
const char *jwt_claims(const struct jwt_conf *c, const weir_value *claims, int64_t wall,
                       int64_t *until);

/* NULL, or why it is none. */
const char *jwt_read(weir_task *t, const struct jwt_conf *c, weir_str text,
                     struct jwt_token *token);
/* The claims of one that is genuine: NULL, or what does not hold.  *until: wall clock. */
const char *jwt_check(weir_task *t, const struct jwt_conf *c, struct jwt_token *token,
                      int64_t *until);

/* ---- what has been verified already (jwt_cache.c) ---- */

/* Of one loop; zeroed, then made by begin. */
struct jwt_cache {
        struct jwt_entry *entry;
        size_t n;
};
int jwt_cache_begin(struct jwt_cache *c, size_t n); /* 0: no memory */
void jwt_cache_end(struct jwt_cache *c);
/* What was kept of the token with that digest, by keys with that serial; absent: nothing. */
weir_str jwt_cache_get(const struct jwt_cache *c, const uint8_t digest[32], uint64_t serial,
                       int64_t now);
void jwt_cache_put(struct jwt_cache *c, const uint8_t digest[32], uint64_t serial, int64_t until,
                   weir_str kept);

#endif
