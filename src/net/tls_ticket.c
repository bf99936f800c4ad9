/*
 * Ticket keys: a ring that the master makes, rotates and hands down by fork, so that a ticket opens
 * on every loop and worker, after a reload and after a crash.
 *
 * The difficulty: it is written (by the master, and by each worker that reads a key file) while
 * others read.  The ring is a sequence lock over words that are themselves atomic; a reader that
 * met a writer reads again.  A writer that died in the middle stops nobody: both sides lose
 * patience.
 */
#include "net/tls_type.h"

#include "base/check.h"
#include "base/crypto.h"
#include "base/shm.h"

#include <openssl/core_names.h>
#include <openssl/evp.h>

#define KEY_BYTES 80 /* as in a ticket_keys file: name 16, MAC key 32, cipher key 32 */
#define KEY_WORDS (KEY_BYTES / 8)
#define PATIENCE  1000000 /* looks at the lock: some milliseconds */

struct ticket_key {
        uint8_t name[16], mac[32], cipher[32];
};
_Static_assert(sizeof(struct ticket_key) == KEY_BYTES, "a key is 80 bytes without padding");

/* Invariant: seq is odd while a writer writes; key[0] is the newest; n >= 1. */
struct tls_tickets {
        _Atomic uint32_t seq;
        _Atomic uint32_t n;
        _Atomic uint64_t key[TLS_TICKET_KEYS][KEY_WORDS];
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

/* Replaces all keys. */
static void ring_write(struct tls_tickets *t, const struct ticket_key *k, uint32_t n)
{
        uint32_t seq = ring_lock(t);

        atomic_thread_fence(memory_order_release);
        for (uint32_t i = 0; i < n; i++) {
                uint64_t w[KEY_WORDS];
                memcpy(w, &k[i], sizeof(w));
                for (size_t j = 0; j < KEY_WORDS; j++)
                        atomic_store_explicit(&t->key[i][j], w[j], memory_order_relaxed);
        }
        atomic_store_explicit(&t->n, n, memory_order_relaxed);
        atomic_store_explicit(&t->seq, seq + 1, memory_order_release);
}

static uint32_t ring_read(struct tls_tickets *t, struct ticket_key k[TLS_TICKET_KEYS])
{
        uint32_t before, n;
        unsigned tries = 0;

        do {
                before = atomic_load_explicit(&t->seq, memory_order_acquire);
                n = MIN(atomic_load_explicit(&t->n, memory_order_relaxed), TLS_TICKET_KEYS);
                for (uint32_t i = 0; i < n; i++) {
                        uint64_t w[KEY_WORDS];
                        for (size_t j = 0; j < KEY_WORDS; j++)
                                w[j] = atomic_load_explicit(&t->key[i][j], memory_order_relaxed);
                        memcpy(&k[i], w, sizeof(w));
                }
                atomic_thread_fence(memory_order_acquire);
        } while (((before & 1) || atomic_load_explicit(&t->seq, memory_order_relaxed) != before) &&
                 ++tries < PATIENCE);
        return n;
}

struct tls_tickets *tls_tickets_new(void)
{
        struct tls_tickets *t = shm_new(sizeof(*t));

        tls_tickets_rotate(t);
        return t;
}

void tls_tickets_rotate(struct tls_tickets *t)
{
        struct ticket_key k[TLS_TICKET_KEYS + 1];
        uint32_t n = ring_read(t, k + 1);

        crypto_random(&k[0], sizeof(k[0]));
        ring_write(t, k, MIN(n + 1, TLS_TICKET_KEYS));
        OPENSSL_cleanse(k, sizeof(k));
}

bool tls_tickets_load(struct tls_tickets *t, str file_content)
{
        struct ticket_key k[TLS_TICKET_KEYS], old[TLS_TICKET_KEYS];
        size_t n = file_content.n / KEY_BYTES;

        if (n == 0 || n > TLS_TICKET_KEYS || file_content.n % KEY_BYTES != 0)
                return false;
        memcpy(k, file_content.p, file_content.n);
        /* Every worker loads the same file at every reload: mostly there is nothing to write. */
        if (ring_read(t, old) != n || memcmp(old, k, n * KEY_BYTES) != 0)
                ring_write(t, k, (uint32_t)n);
        OPENSSL_cleanse(k, sizeof(k));
        OPENSSL_cleanse(old, sizeof(old));
        return true;
}

size_t tls_tickets_save(struct tls_tickets *t, char out[TLS_TICKET_BYTES])
{
        struct ticket_key k[TLS_TICKET_KEYS];
        size_t n = ring_read(t, k) * (size_t)KEY_BYTES;

        _Static_assert(sizeof(k) == TLS_TICKET_BYTES, "all keys fit");
        memcpy(out, k, n);
        OPENSSL_cleanse(k, sizeof(k));
        return n;
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
        struct ticket_key k[TLS_TICKET_KEYS];
        uint32_t n = ring_read(ring, k);
        int result = 0;
        bool renew;

        if (encrypt) {
                memcpy(name, k[0].name, sizeof(k[0].name));
                crypto_random(iv, (size_t)EVP_CIPHER_get_iv_length(aes));
                result = key_into(&k[0], iv, cipher, mac, 1) ? 1 : -1;
        } else {
                for (uint32_t i = 0; i < n; i++) {
                        if (memcmp(name, k[i].name, sizeof(k[i].name)) != 0)
                                continue;
                        /* A client uses a ticket of TLS 1.3 once, so it needs another for the next
                         * time. */
                        renew = i > 0 || SSL_version(ssl) == TLS1_3_VERSION;
                        result = !key_into(&k[i], iv, cipher, mac, 0) ? -1 : renew ? 2 : 1;
                        break;
                }
        }
        OPENSSL_cleanse(k, sizeof(k));
        return result;
}

void tls_tickets_attach(SSL_CTX *ctx)
{
        if (ring != NULL)
                SSL_CTX_set_tlsext_ticket_key_evp_cb(ctx, on_ticket);
}
