/*
 * Ticket keys: a ring that the master makes and hands down by fork, so that a ticket opens on every
 * loop and worker, after a reload and after a crash; and, with keys that other machines have too,
 * behind each of them.
 *
 * The difficulty: it is written while others read.  The ring is a sequence lock over words that are
 * themselves atomic; a reader that met a writer reads again.  A writer that died in the middle
 * stops nobody: both sides lose patience.
 */
#include "net/tls_type.h"

#include "base/check.h"
#include "base/crypto.h"
#include "base/shm.h"

#include <openssl/core_names.h>
#include <openssl/evp.h>
#include <time.h>

#define SET_WORDS (sizeof(struct tls_ticket_set) / 8)
#define PATIENCE  1000000 /* looks at the lock: some milliseconds */

struct ticket_key {
        uint8_t name[16], mac[32], cipher[32];
};
_Static_assert(sizeof(struct ticket_key) == TLS_TICKET_KEY_BYTES, "a key has no padding");
_Static_assert(sizeof(struct tls_ticket_set) % 8 == 0, "a set is whole words");

/* Invariant: seq is odd while a writer writes; the words are a set. */
struct tls_tickets {
        _Atomic uint32_t seq;
        _Atomic int64_t since; /* us of the epoch */
        _Atomic uint64_t word[SET_WORDS];
};

static struct tls_tickets *ring; /* of this process */
static EVP_CIPHER *aes;

void tls_ticket_init(void)
{
        if (aes == NULL)
                aes = EVP_CIPHER_fetch(NULL, "AES-256-CBC", NULL);
        CHECK(aes != NULL);
}

/* Makes seq odd, for this writer alone; returns it. */
static uint32_t ring_lock(struct tls_tickets *t)
{
        uint32_t seq = atomic_load_explicit(&t->seq, memory_order_relaxed);

        for (unsigned tries = 0; tries < PATIENCE; tries++) {
                seq &= ~UINT32_C(1);
                if (atomic_compare_exchange_weak_explicit(
                            &t->seq, &seq, seq + 1, memory_order_acquire, memory_order_relaxed))
                        return seq + 1;
        }
        return seq | 1;
}

static void ring_write(struct tls_tickets *t, const struct tls_ticket_set *set)
{
        uint64_t w[SET_WORDS];
        uint32_t seq;

        CHECK(set->seal < set->n && set->n <= TLS_TICKET_KEYS);
        memcpy(w, set, sizeof(w));
        seq = ring_lock(t);
        atomic_thread_fence(memory_order_release);
        for (size_t i = 0; i < SET_WORDS; i++)
                atomic_store_explicit(&t->word[i], w[i], memory_order_relaxed);
        atomic_store_explicit(&t->seq, seq + 1, memory_order_release);
        OPENSSL_cleanse(w, sizeof(w));
}

static void ring_read(struct tls_tickets *t, struct tls_ticket_set *set)
{
        uint64_t w[SET_WORDS] = {0};
        uint32_t before;
        unsigned tries = 0;

        do {
                before = atomic_load_explicit(&t->seq, memory_order_acquire);
                for (size_t i = 0; i < SET_WORDS; i++)
                        w[i] = atomic_load_explicit(&t->word[i], memory_order_relaxed);
                atomic_thread_fence(memory_order_acquire);
        } while (((before & 1) || atomic_load_explicit(&t->seq, memory_order_relaxed) != before) &&
                 ++tries < PATIENCE);
        memcpy(set, w, sizeof(*set));
        set->n = MIN(set->n, TLS_TICKET_KEYS); /* torn, if patience was lost */
        set->seal = set->seal < set->n ? set->seal : 0;
        OPENSSL_cleanse(w, sizeof(w));
}

static bool same_key(const struct tls_ticket_entry *a, const struct tls_ticket_entry *b)
{
        return memcmp(a->key, b->key, sizeof(a->key)) == 0;
}

static int64_t wall_now(void)
{
        struct timespec now;

        clock_gettime(CLOCK_REALTIME, &now);
        return (int64_t)now.tv_sec * SEC + now.tv_nsec / 1000;
}

enum tls_tickets_result tls_tickets_put(struct tls_tickets *t, const struct tls_ticket_set *set)
{
        struct tls_ticket_set old;
        bool same;

        ring_read(t, &old);
        same = old.n > 0 && same_key(&old.v[old.seal], &set->v[set->seal]);
        if (!same)
                atomic_store(&t->since, wall_now());
        ring_write(t, set);
        OPENSSL_cleanse(&old, sizeof(old));
        return same ? TLS_TICKETS_KEPT : TLS_TICKETS_ROTATED;
}

void tls_tickets_get(struct tls_tickets *t, struct tls_ticket_set *out)
{
        ring_read(t, out);
}

int64_t tls_tickets_since(struct tls_tickets *t)
{
        return atomic_load_explicit(&t->since, memory_order_relaxed);
}

struct tls_tickets *tls_tickets_new(void)
{
        struct tls_tickets *t = shm_new(sizeof(*t));

        tls_tickets_rotate(t);
        return t;
}

void tls_tickets_rotate(struct tls_tickets *t)
{
        struct tls_ticket_set old, set = {.n = 1};

        ring_read(t, &old);
        crypto_random(set.v[0].key, sizeof(set.v[0].key));
        for (uint32_t i = old.seal; i < old.n && set.n <= TLS_TICKET_OLD; i++)
                set.v[set.n++] = old.v[i];
        (void)tls_tickets_put(t, &set);
        OPENSSL_cleanse(&old, sizeof(old));
        OPENSSL_cleanse(&set, sizeof(set));
}

/* ---- files ---- */

bool tls_tickets_file_ok(str content)
{
        return content.n > 0 && content.n % TLS_TICKET_KEY_BYTES == 0 &&
               content.n / TLS_TICKET_KEY_BYTES <= TLS_TICKET_FILE_KEYS;
}

static void file_set(str content, struct tls_ticket_set *set)
{
        *set = (struct tls_ticket_set){.n = (uint32_t)(content.n / TLS_TICKET_KEY_BYTES)};
        for (uint32_t i = 0; i < set->n; i++)
                memcpy(set->v[i].key, content.p + i * TLS_TICKET_KEY_BYTES, TLS_TICKET_KEY_BYTES);
}

enum tls_tickets_result tls_tickets_load(struct tls_tickets *t, str content)
{
        struct tls_ticket_set set;
        enum tls_tickets_result r;

        if (content.n > TLS_TICKET_BYTES || content.n == 0 || content.n % TLS_TICKET_KEY_BYTES != 0)
                return TLS_TICKETS_BROKEN;
        file_set(content, &set);
        r = tls_tickets_put(t, &set);
        OPENSSL_cleanse(&set, sizeof(set));
        return r;
}

static uint32_t place_of(const struct tls_ticket_set *set, const struct tls_ticket_entry *e)
{
        uint32_t i = 0;

        while (i < set->n && !same_key(&set->v[i], e))
                i++;
        return i;
}

enum tls_tickets_result tls_tickets_stage(struct tls_tickets *t, str content)
{
        struct tls_ticket_set set, old;
        enum tls_tickets_result r = TLS_TICKETS_STAGED;
        uint32_t at;

        if (!tls_tickets_file_ok(content))
                return TLS_TICKETS_BROKEN;
        file_set(content, &set);
        ring_read(t, &old);
        at = place_of(&old, &set.v[0]);
        if (at >= old.seal && at < old.n) { /* before it there are only those that wait */
                r = tls_tickets_put(t, &set);
        } else {
                set.seal = place_of(&set, &old.v[old.seal]);
                if (set.seal == set.n)
                        set.v[set.n++] = old.v[old.seal];
                (void)tls_tickets_put(t, &set);
        }
        OPENSSL_cleanse(&set, sizeof(set));
        OPENSSL_cleanse(&old, sizeof(old));
        return r;
}

/* What seals comes first: whoever loads this goes on sealing with it. */
size_t tls_tickets_save(struct tls_tickets *t, char out[TLS_TICKET_BYTES])
{
        struct tls_ticket_set set;
        size_t n = 0;

        ring_read(t, &set);
        memcpy(out, set.v[set.seal].key, TLS_TICKET_KEY_BYTES);
        for (uint32_t i = 0; i < set.n; i++)
                if (i != set.seal)
                        memcpy(out + ++n * TLS_TICKET_KEY_BYTES, set.v[i].key,
                               TLS_TICKET_KEY_BYTES);
        OPENSSL_cleanse(&set, sizeof(set));
        return (n + 1) * TLS_TICKET_KEY_BYTES;
}

void tls_tickets_use(struct tls_tickets *t)
{
        ring = t;
}

static bool key_into(const struct ticket_key *k, const unsigned char *iv, EVP_CIPHER_CTX *cipher,
                     EVP_MAC_CTX *mac, int encrypt)
{
        char digest[] = "SHA256";
        OSSL_PARAM params[] = {
                OSSL_PARAM_construct_octet_string(OSSL_MAC_PARAM_KEY, (void *)k->mac,
                                                  sizeof(k->mac)),
                OSSL_PARAM_construct_utf8_string(OSSL_MAC_PARAM_DIGEST, digest, 0),
                OSSL_PARAM_construct_end(),
        };

        return EVP_CipherInit_ex(cipher, aes, NULL, k->cipher, iv, encrypt) == 1 &&
               EVP_MAC_CTX_set_params(mac, params) == 1;
}

/* OpenSSL's contract: -1 error, 0 no such key (a full handshake), 1 fine, 2 fine but give a new
 * ticket. */
static int on_ticket(SSL *ssl, unsigned char *name, unsigned char *iv, EVP_CIPHER_CTX *cipher,
                     EVP_MAC_CTX *mac, int encrypt)
{
        struct tls_ticket_set set;
        struct ticket_key k;
        int result = 0;
        uint32_t i;

        ring_read(ring, &set);
        if (encrypt) {
                memcpy(&k, set.v[set.seal].key, sizeof(k));
                memcpy(name, k.name, sizeof(k.name));
                crypto_random(iv, (size_t)EVP_CIPHER_get_iv_length(aes));
                result = key_into(&k, iv, cipher, mac, 1) ? 1 : -1;
        } else {
                for (i = 0; i < set.n && memcmp(name, set.v[i].key, sizeof(k.name)) != 0; i++)
                        ;
                if (i < set.n) {
                        memcpy(&k, set.v[i].key, sizeof(k));
                        /* An old key leaves soon; and a client uses a ticket of TLS 1.3 once, so it
                         * needs another for the next time. */
                        bool renew = i > set.seal || SSL_version(ssl) == TLS1_3_VERSION;
                        result = !key_into(&k, iv, cipher, mac, 0) ? -1 : renew ? 2 : 1;
                }
        }
        OPENSSL_cleanse(&set, sizeof(set));
        OPENSSL_cleanse(&k, sizeof(k));
        return result;
}

void tls_tickets_attach(SSL_CTX *ctx)
{
        if (ring != NULL)
                SSL_CTX_set_tlsext_ticket_key_evp_cb(ctx, on_ticket);
}
