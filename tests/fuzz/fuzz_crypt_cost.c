/*
 * Hashes: any text is judged without reading beyond its end, and has at most one form.
 */
#include "base/check.h"

#include <weir/module.h>

#include "../../modules/crypt_cost.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
        char *hash = malloc(size + 1);
        const struct crypt_form *f;

        CHECK(hash != NULL);
        if (size > 0)
                memcpy(hash, data, size);
        hash[size] = '\0';
        f = crypt_form_of(hash);
        CHECK(f == NULL || !crypt_is_weak(hash));
        if (f != NULL) {
                CHECK(crypt_cost(hash, f) >= -1);
                CHECK(!crypt_is_whole(hash, f) || strlen(hash) > f->n_hash);
        }
        free(hash);
        return 0;
}
