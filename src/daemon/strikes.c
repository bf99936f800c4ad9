/*
 * Strikes and the pace of respawning.
 */
#include "daemon/strikes.h"

#include "base/check.h"

#include <stdlib.h>
#include <string.h>

struct strike {
        struct list link;
        uint8_t sha[32];
        int64_t at[STRIKES_LIMIT]; /* newest first; 0: none */
        uint32_t n;                /* in all */
        bool quarantined;
};

void strikes_init(struct strikes *s)
{
        list_init(&s->all);
}

static struct strike *find(const struct strikes *s, const uint8_t sha[32])
{
        LIST_EACH (n, &s->all) {
                struct strike *k = CONTAINER_OF(n, struct strike, link);
                if (memcmp(k->sha, sha, sizeof(k->sha)) == 0)
                        return k;
        }
        return NULL;
}

/* Is the oldest of the remembered times, with now put in front, still within the window? */
static bool remember(int64_t *at, int64_t now)
{
        memmove(at + 1, at, (STRIKES_LIMIT - 1) * sizeof(*at));
        at[0] = now;
        return at[STRIKES_LIMIT - 1] != 0 && now - at[STRIKES_LIMIT - 1] <= STRIKES_WINDOW;
}

bool strikes_add(struct strikes *s, const uint8_t sha[32], int64_t now)
{
        struct strike *k = find(s, sha);

        if (!k) {
                k = calloc(1, sizeof(*k));
                CHECK(k);
                memcpy(k->sha, sha, sizeof(k->sha));
                list_push(&s->all, &k->link);
        }
        k->n++;
        if (remember(k->at, now))
                k->quarantined = true;
        return k->quarantined;
}

bool strikes_quarantined(const struct strikes *s, const uint8_t sha[32])
{
        const struct strike *k = find(s, sha);

        return k && k->quarantined;
}

bool strikes_clear(struct strikes *s, const uint8_t sha[32])
{
        struct strike *k = find(s, sha);
        bool was = k && k->quarantined;

        if (k) {
                list_remove(&k->link);
                free(k);
        }
        return was;
}

void strikes_each(const struct strikes *s,
                  void (*fn)(void *ctx, const uint8_t sha[32], uint32_t n, bool quarantined),
                  void *ctx)
{
        LIST_EACH (n, &s->all) {
                const struct strike *k = CONTAINER_OF(n, struct strike, link);
                fn(ctx, k->sha, k->n, k->quarantined);
        }
}

void strikes_forget(struct strikes *s, bool (*keep)(void *ctx, const uint8_t sha[32]), void *ctx)
{
        LIST_EACH (n, &s->all) {
                struct strike *k = CONTAINER_OF(n, struct strike, link);
                if (keep(ctx, k->sha))
                        continue;
                list_remove(&k->link);
                free(k);
        }
}

int64_t pace_next(struct pace *p, int64_t now)
{
        static const int64_t pauses[] = {100 * MSEC, 500 * MSEC, 2 * SEC, 10 * SEC, 30 * SEC};
        bool many = p->last[STRIKES_LIMIT - 1] != 0 &&
                    now - p->last[STRIKES_LIMIT - 1] <= STRIKES_WINDOW;

        (void)remember(p->last, now);
        if (!many) {
                p->over = 0;
                return 0;
        }
        unsigned more = p->over++;
        return pauses[MIN(more, (unsigned)COUNT(pauses) - 1)];
}
