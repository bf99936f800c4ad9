/*
 * Keys: any text is judged, a key that comes of it verifies nothing by accident, and a second
 * reading gives the same.
 *
 * The first byte says how much of the input is a signature; before it come the text of the key and
 * the name of an algorithm.
 */
#include "base/check.h"
#include "base/crypto_key.h"

static const char *const algs[] = {"HS256", "HS384", "HS512", "RS256", "RS384",
                                   "RS512", "PS256", "PS384", "PS512", "ES256",
                                   "ES384", "ES512", "EdDSA", "none",  ""};

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
        struct arena *a = arena_new(0);
        struct crypto_key *k, *again;
        str text, sig;
        size_t n;

        if (size < 1) {
                arena_free(a);
                return 0;
        }
        n = MIN((size_t)data[0], size - 1);
        text = str_of(data + 1, size - 1 - n);
        sig = str_of(data + size - n, n);
        k = crypto_key_new(a, text);
        again = crypto_key_new(a, text);
        CHECK((k == NULL) == (again == NULL));
        for (size_t i = 0; k != NULL && i < COUNT(algs); i++) {
                bool genuine = crypto_key_verify(k, str_z(algs[i]), text, sig);
                CHECK(genuine == crypto_key_verify(again, str_z(algs[i]), text, sig));
                CHECK(!genuine || i < 13);
        }
        crypto_key_free(k);
        crypto_key_free(again);
        arena_free(a);
        return 0;
}
