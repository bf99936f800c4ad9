/*
 * Who was inside when a worker died: strikes against module contents, and how long to wait before
 * the next worker.  Pure.
 */
#ifndef DAEMON_STRIKES_H
#define DAEMON_STRIKES_H

#include "base/list.h"
#include "base/str.h"

#define STRIKES_LIMIT  3
#define STRIKES_WINDOW (60 * SEC)

struct strikes {
        struct list all;
};

void strikes_init(struct strikes *s);
/* One more against the content; true: it is quarantined from now on. */
bool strikes_add(struct strikes *s, const uint8_t sha[32], int64_t now);
bool strikes_quarantined(const struct strikes *s, const uint8_t sha[32]);
/* Forgets those of one content, its quarantine too; false: it was not quarantined. */
bool strikes_clear(struct strikes *s, const uint8_t sha[32]);
/* Each content that has some: how many in all, and whether it is quarantined. */
void strikes_each(const struct strikes *s,
                  void (*fn)(void *ctx, const uint8_t sha[32], uint32_t n, bool quarantined),
                  void *ctx);
/* Forgets all that keep(ctx, sha) does not name: another content has taken its place. */
void strikes_forget(struct strikes *s, bool (*keep)(void *ctx, const uint8_t sha[32]), void *ctx);

/* How long to wait before replacing a worker that died now: 0 for the first three deaths within 60
 * s, then growing.  History is the caller's. */
struct pace {
        int64_t last[STRIKES_LIMIT]; /* newest first; 0: none */
        unsigned over;               /* deaths beyond those in a row */
};
int64_t pace_next(struct pace *p, int64_t now);

#endif
