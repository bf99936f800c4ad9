/*
 * Places for OCSP responses in shared memory, and OpenSSL's question for one.
 *
 * The difficulty: a handshake reads while the fetcher writes, and waits for nobody, not even for a
 * fetcher that died in the middle.  So a place has two leaves; the writer fills the one that is not
 * shown and turns it over with one store, and a reader that finds the version changed behind it
 * reads again.
 */
#include "net/tls_staple.h"

#include "base/check.h"
#include "base/crypto.h"
#include "base/shm.h"
#include "net/tls_type.h"

#include <stdlib.h>
#include <time.h>

#define PLACES     (2 * TLS_STAPLES_MAX) /* two configurations share nothing at worst */
#define LEAF_WORDS (TLS_OCSP_MAX / 8)
#define TRIES      4

struct leaf {
        _Atomic uint32_t n; /* bytes; 0: nothing */
        _Atomic int64_t this_update, next_update;
        _Atomic uint64_t words[LEAF_WORDS];
};

/* Invariant: leaf[version & 1] is shown. */
struct place {
        _Atomic uint32_t epoch; /* changes with the owner; 0: never had one */
        _Atomic uint32_t version;
        uint8_t id[32]; /* the master writes it before it tells anybody */
        struct leaf leaf[2];
};

struct tls_staples {
        struct place place[PLACES];
};

/* What a certificate carries: a response that was read from a file, or a place.  Owned by it. */
struct staple {
        struct tls_staple_ref ref;
        int64_t next_update;
        size_t n;
        unsigned char der[];
};

static struct tls_staples *shared; /* of this process */
static int in_cert = -1;           /* index of a certificate's staple */

struct tls_staples *tls_staples_new(void)
{
        return shm_new(sizeof(struct tls_staples));
}

void tls_staples_free(struct tls_staples *s)
{
        shm_free(s, sizeof(*s));
}

void tls_staples_use(struct tls_staples *s)
{
        shared = s;
}

void tls_staple_id(str chain_pem, uint8_t out[32])
{
        crypto_sha256(chain_pem, out);
}

/* ---- places ---- */

static bool among(const uint8_t (*ids)[32], size_t n, const uint8_t id[32])
{
        for (size_t i = 0; i < n; i++)
                if (memcmp(ids[i], id, 32) == 0)
                        return true;
        return false;
}

static struct place *place_of(struct tls_staples *s, const uint8_t id[32])
{
        for (size_t i = 0; i < PLACES; i++) {
                struct place *p = &s->place[i];
                if (atomic_load(&p->epoch) != 0 && memcmp(p->id, id, 32) == 0)
                        return p;
        }
        return NULL;
}

static void give(struct place *p, const uint8_t id[32])
{
        uint32_t next = atomic_load(&p->version) + 1;

        atomic_fetch_add(&p->epoch, 1);
        memcpy(p->id, id, 32);
        atomic_store(&p->leaf[next & 1].n, 0);
        atomic_store(&p->version, next);
}

void tls_staples_claim(struct tls_staples *s, const uint8_t (*ids)[32], size_t n,
                       const uint8_t (*keep)[32], size_t n_keep)
{
        size_t at = 0;

        CHECK(n <= TLS_STAPLES_MAX && n_keep <= TLS_STAPLES_MAX);
        for (size_t i = 0; i < n; i++) {
                if (place_of(s, ids[i]) != NULL)
                        continue;
                while (atomic_load(&s->place[at].epoch) != 0 &&
                       (among(ids, n, s->place[at].id) || among(keep, n_keep, s->place[at].id)))
                        at++;
                CHECK(at < PLACES); /* there are as many as both may have */
                give(&s->place[at], ids[i]);
        }
}

struct tls_staple_ref tls_staple_find(const uint8_t id[32])
{
        struct place *p = shared ? place_of(shared, id) : NULL;

        if (p == NULL)
                return (struct tls_staple_ref){0};
        return (struct tls_staple_ref){shared, (uint32_t)(p - shared->place),
                                       atomic_load(&p->epoch)};
}

static struct place *alive(const struct tls_staple_ref *r)
{
        struct place *p = r->all ? &r->all->place[r->at] : NULL;

        return p && atomic_load_explicit(&p->epoch, memory_order_acquire) == r->epoch ? p : NULL;
}

void tls_staple_put(const struct tls_staple_ref *r, str der, const struct tls_ocsp_times *t)
{
        struct place *p = alive(r);
        uint32_t next;
        struct leaf *l;

        CHECK(der.n <= TLS_OCSP_MAX);
        if (p == NULL)
                return;
        next = atomic_load(&p->version) + 1;
        l = &p->leaf[next & 1];
        for (size_t i = 0; i * 8 < der.n; i++) {
                uint64_t w = 0;
                memcpy(&w, der.p + i * 8, MIN(der.n - i * 8, sizeof(w)));
                atomic_store_explicit(&l->words[i], w, memory_order_relaxed);
        }
        atomic_store_explicit(&l->n, (uint32_t)der.n, memory_order_relaxed);
        atomic_store_explicit(&l->this_update, t->this_update, memory_order_relaxed);
        atomic_store_explicit(&l->next_update, t->next_update, memory_order_relaxed);
        atomic_store_explicit(&p->version, next, memory_order_release);
}

/* Is what was just read still what is shown, and ours? */
static bool unchanged(struct place *p, uint32_t version, uint32_t epoch)
{
        atomic_thread_fence(memory_order_acquire);
        return atomic_load_explicit(&p->version, memory_order_relaxed) == version &&
               atomic_load_explicit(&p->epoch, memory_order_relaxed) == epoch;
}

bool tls_staple_times(const struct tls_staple_ref *r, struct tls_ocsp_times *t)
{
        struct place *p = alive(r);

        for (unsigned i = 0; p != NULL && i < TRIES; i++) {
                uint32_t version = atomic_load_explicit(&p->version, memory_order_acquire);
                struct leaf *l = &p->leaf[version & 1];
                bool any = atomic_load_explicit(&l->n, memory_order_relaxed) > 0;
                t->this_update = atomic_load_explicit(&l->this_update, memory_order_relaxed);
                t->next_update = atomic_load_explicit(&l->next_update, memory_order_relaxed);
                if (unchanged(p, version, r->epoch))
                        return any;
        }
        return false;
}

size_t tls_staple_read(const struct tls_staple_ref *r, int64_t now_s,
                       unsigned char out[TLS_OCSP_MAX])
{
        struct place *p = alive(r);

        for (unsigned i = 0; p != NULL && i < TRIES; i++) {
                uint32_t version = atomic_load_explicit(&p->version, memory_order_acquire);
                struct leaf *l = &p->leaf[version & 1];
                size_t n = MIN(atomic_load_explicit(&l->n, memory_order_relaxed), TLS_OCSP_MAX);
                if (atomic_load_explicit(&l->next_update, memory_order_relaxed) <= now_s)
                        n = 0;
                for (size_t k = 0; k * 8 < n; k++) {
                        uint64_t w = atomic_load_explicit(&l->words[k], memory_order_relaxed);
                        memcpy(out + k * 8, &w, MIN(n - k * 8, sizeof(w)));
                }
                if (unchanged(p, version, r->epoch))
                        return n;
        }
        return 0;
}

/* ---- handing over ---- */

struct saved {
        uint8_t id[32];
        int64_t this_update, next_update;
        uint64_t n; /* bytes of the response, which follows */
};

void tls_staples_save(struct tls_staples *s, struct buf *out)
{
        unsigned char der[TLS_OCSP_MAX];

        for (uint32_t i = 0; i < PLACES; i++) {
                struct place *p = &s->place[i];
                struct tls_staple_ref r = {s, i, atomic_load(&p->epoch)};
                uint32_t version = atomic_load(&p->version);
                struct tls_ocsp_times t;
                struct saved head = {.n = 0};
                if (r.epoch == 0 || !tls_staple_times(&r, &t))
                        continue;
                head.n = tls_staple_read(&r, INT64_MIN, der);
                if (head.n == 0 || !unchanged(p, version, r.epoch)) /* it is fetched again */
                        continue;
                head.this_update = t.this_update;
                head.next_update = t.next_update;
                memcpy(head.id, p->id, sizeof(head.id));
                buf_put(out, &head, sizeof(head));
                buf_put(out, der, head.n);
        }
}

bool tls_staples_load(struct tls_staples *s, str text)
{
        struct saved head;

        for (uint32_t i = 0; i < PLACES && text.n > 0; i++) {
                struct tls_staple_ref r = {s, i, 1};
                if (text.n < sizeof(head))
                        return false;
                memcpy(&head, text.p, sizeof(head));
                text = str_from(text, sizeof(head));
                if (head.n == 0 || head.n > MIN(text.n, (size_t)TLS_OCSP_MAX) ||
                    atomic_load(&s->place[i].epoch) != 0)
                        return false;
                give(&s->place[i], head.id);
                tls_staple_put(&r, str_head(text, head.n),
                               &(struct tls_ocsp_times){head.this_update, head.next_update});
                text = str_from(text, head.n);
        }
        return text.n == 0;
}

/* ---- in the handshake ---- */

static void staple_free(void *parent UNUSED, void *ptr, CRYPTO_EX_DATA *ad UNUSED, int idx UNUSED,
                        long argl UNUSED, void *argp UNUSED)
{
        free(ptr);
}

void tls_staple_init(void)
{
        if (in_cert < 0)
                in_cert = X509_get_ex_new_index(0, NULL, NULL, NULL, staple_free);
        CHECK(in_cert >= 0);
}

/* Takes p, of OpenSSL's memory. */
static int answer(SSL *ssl, unsigned char *p, size_t n)
{
        if (n > 0 && SSL_set_tlsext_status_ocsp_resp(ssl, p, (long)n) == 1)
                return SSL_TLSEXT_ERR_OK;
        OPENSSL_free(p);
        return SSL_TLSEXT_ERR_NOACK;
}

/* The client asks for the status of the certificate that was chosen. */
static int on_status(SSL *ssl, void *arg UNUSED)
{
        X509 *x = SSL_get_certificate(ssl);
        const struct staple *s = x ? X509_get_ex_data(x, in_cert) : NULL;
        int64_t now_s = (int64_t)time(NULL);
        unsigned char *p;

        if (s == NULL)
                return SSL_TLSEXT_ERR_NOACK;
        if (s->n > 0) {
                if (s->next_update <= now_s)
                        return SSL_TLSEXT_ERR_NOACK;
                p = OPENSSL_memdup(s->der, s->n);
                return answer(ssl, p, p ? s->n : 0);
        }
        unsigned char buf[TLS_OCSP_MAX];
        size_t n = tls_staple_read(&s->ref, now_s, buf);
        if (n == 0)
                return SSL_TLSEXT_ERR_NOACK;
        p = OPENSSL_memdup(buf, n);
        return answer(ssl, p, p ? n : 0);
}

void tls_staple_attach(SSL_CTX *ctx, X509 *x, const struct tls_pair *pair)
{
        struct staple *s;

        if (pair->staple.all == NULL && pair->ocsp.n == 0)
                return;
        s = calloc(1, sizeof(*s) + pair->ocsp.n);
        CHECK(s != NULL);
        s->ref = pair->staple;
        s->n = pair->ocsp.n;
        s->next_update = pair->ocsp_next;
        if (s->n > 0)
                memcpy(s->der, pair->ocsp.p, s->n);
        CHECK(X509_set_ex_data(x, in_cert, s) == 1);
        SSL_CTX_set_tlsext_status_cb(ctx, on_status);
}
