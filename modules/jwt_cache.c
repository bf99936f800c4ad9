/*
 * Tokens that have been verified: a client sends the same one again and again, and a signature
 * costs more than all the rest of a request.
 *
 * A table of fixed size in each loop; a token that falls on the place of another takes it.  What is
 * kept is the digest of the token, never the token.
 */
#include "jwt.h"

#include <stdlib.h>

#define KEPT_MAX 4096 /* of one token's claims */

struct jwt_entry {
        uint8_t digest[32];
        uint64_t serial; /* of the keys that verified it */
        int64_t until;
        char *kept; /* malloc'd; NULL: the place is free */
        size_t n;
};

int jwt_cache_begin(struct jwt_cache *c, size_t n)
{
        c->entry = n > 0 ? calloc(n, sizeof(*c->entry)) : NULL;
        c->n = c->entry ? n : 0;
        return n == 0 || c->entry != NULL;
}

void jwt_cache_end(struct jwt_cache *c)
{
        for (size_t i = 0; i < c->n; i++)
                free(c->entry[i].kept);
        free(c->entry);
}

/* A SHA-256 is spread well already. */
static struct jwt_entry *place_of(const struct jwt_cache *c, const uint8_t digest[32])
{
        uint64_t h;

        if (c->n == 0)
                return NULL;
        memcpy(&h, digest, sizeof(h));
        return &c->entry[h % c->n];
}

weir_str jwt_cache_get(const struct jwt_cache *c, const uint8_t digest[32], uint64_t serial,
                       int64_t now)
{
        const struct jwt_entry *e = place_of(c, digest);

        if (e == NULL || e->kept == NULL || e->serial != serial || e->until <= now ||
            memcmp(e->digest, digest, sizeof(e->digest)) != 0)
                return weir_bytes(NULL, 0);
        return weir_bytes(e->kept, e->n);
}

void jwt_cache_put(struct jwt_cache *c, const uint8_t digest[32], uint64_t serial, int64_t until,
                   weir_str kept)
{
        struct jwt_entry *e = place_of(c, digest);
        char *copy;

        if (e == NULL || kept.p == NULL || kept.n > KEPT_MAX)
                return;
        copy = malloc(kept.n + 1);
        if (copy == NULL)
                return;
        memcpy(copy, kept.p, kept.n);
        free(e->kept);
        *e = (struct jwt_entry){.serial = serial, .until = until, .kept = copy, .n = kept.n};
        memcpy(e->digest, digest, sizeof(e->digest));
}
