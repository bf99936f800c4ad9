/*
 * The ClientHellos whose early data was taken, so that none is taken twice (RFC 8446 8.2).
 *
 * OpenSSL lets early data pass only if the age that the ClientHello claims for its ticket is true
 * to ten seconds (RFC 8446 8.3), so each need be remembered for that long only.  The record is a
 * set-associative table in memory that the master makes and all workers share: a ClientHello is
 * known on every loop, after a reload and after a crash.  A full set takes nothing more: then there
 * is a round trip instead of early data.
 *
 * The difficulty: many threads of several processes ask at once, any of which may die, so there is
 * no lock.  An entry is one word.  Whoever has put one looks again: of two that came with the same
 * ClientHello at least one sees the other, and then does not take it.
 */
#include "net/tls_type.h"

#include "base/check.h"
#include "base/crypto.h"
#include "base/shm.h"

#include <time.h>

#define SETS   4096u
#define WAYS   32u
#define WINDOW 15  /* seconds: OpenSSL's ten, and what whole seconds and unlike clocks may add */
#define AHEAD  999 /* by which an entry may be ahead of a thread that was kept from running */

/* An entry: 48 bits of the ClientHello's hash, 16 of the second it came in; 0: none yet. */
struct tls_replay {
        uint8_t secret[16];
        int64_t born, born_wall; /* seconds of both clocks */
        _Atomic bool paused;
        _Atomic uint64_t set[SETS][WAYS];
};

static struct tls_replay *record; /* of this process; NULL: nothing is taken */

static int64_t seconds(clockid_t clock)
{
        struct timespec t;

        clock_gettime(clock, &t);
        return t.tv_sec;
}

struct tls_replay *tls_replay_new(void)
{
        struct tls_replay *r = shm_new(sizeof(*r));

        crypto_random(r->secret, sizeof(r->secret));
        r->born = seconds(CLOCK_MONOTONIC);
        r->born_wall = seconds(CLOCK_REALTIME);
        return r;
}

void tls_replay_free(struct tls_replay *r)
{
        shm_free(r, sizeof(*r));
}

void tls_replay_use(struct tls_replay *r)
{
        record = r;
}

void tls_replay_pause(struct tls_replay *r, bool on)
{
        atomic_store(&r->paused, on);
}

static bool fresh(uint64_t entry, int64_t now)
{
        return entry != 0 &&
               (uint16_t)((uint64_t)now - entry + AHEAD) <= (uint16_t)(WINDOW + AHEAD);
}

/* Whether the set has tag, in another way than but; *room is a way that is not in use. */
static bool has(struct tls_replay *r, size_t set, uint64_t tag, int64_t now, unsigned but,
                unsigned *room, uint64_t *was)
{
        *room = WAYS;
        for (unsigned i = 0; i < WAYS; i++) {
                uint64_t e = atomic_load(&r->set[set][i]);
                if (i == but)
                        continue;
                if (!fresh(e, now) && *room == WAYS) {
                        *room = i;
                        *was = e;
                } else if (fresh(e, now) && e >> 16 == tag) {
                        return true;
                }
        }
        return false;
}

enum tls_seen tls_replay_see(struct tls_replay *r, str hello, int64_t now)
{
        uint64_t hash = crypto_siphash(r->secret, hello), tag = hash >> 16, was;
        size_t set = hash % SETS;
        unsigned way, other;

        do {
                if (has(r, set, tag, now, WAYS, &way, &was))
                        return TLS_SEEN_BEFORE;
                if (way == WAYS)
                        return TLS_SEEN_FULL;
        } while (!atomic_compare_exchange_strong(&r->set[set][way], &was,
                                                 tag << 16 | (uint16_t)now));
        return has(r, set, tag, now, way, &other, &was) ? TLS_SEEN_BEFORE : TLS_SEEN_NEW;
}

/* What was taken before the record was made, by whoever had the same ticket keys, is not in it. */
static bool knows(const struct tls_replay *r, int64_t ticket_wall, int64_t now)
{
        return now - r->born >= WINDOW || ticket_wall > r->born_wall;
}

/* OpenSSL asks when nothing else speaks against the early data of a ClientHello whose binder is
 * good. */
static int on_early_data(SSL *ssl, void *arg UNUSED)
{
        struct tls_peer *p = SSL_get_app_data(ssl);
        int64_t now = seconds(CLOCK_MONOTONIC);
        unsigned char random[SSL3_RANDOM_SIZE];
        size_t n = SSL_get_client_random(ssl, random, sizeof(random));

        if (record == NULL || atomic_load(&record->paused) ||
            !knows(record, SSL_SESSION_get_time(SSL_get0_session(ssl)), now))
                return 0;
        switch (tls_replay_see(record, str_of(random, n), now)) {
        case TLS_SEEN_BEFORE:
                p->replayed = true;
                return 0;
        case TLS_SEEN_FULL:
                return 0;
        case TLS_SEEN_NEW:
                return 1;
        }
        UNREACHABLE();
}

void tls_replay_attach(SSL_CTX *ctx, uint32_t max)
{
        /* Its own protection wants sessions in the memory of one process. */
        SSL_CTX_set_options(ctx, SSL_OP_NO_ANTI_REPLAY);
        SSL_CTX_set_allow_early_data_cb(ctx, on_early_data, NULL);
        CHECK(SSL_CTX_set_max_early_data(ctx, max) == 1);
        CHECK(SSL_CTX_set_recv_max_early_data(ctx, MAX(max, TLS_EARLY_DATA)) == 1);
}
