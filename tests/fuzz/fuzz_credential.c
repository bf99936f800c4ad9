/*
 * Credentials: a cookie that is taken out is gone and the others stay as they were and in order;
 * what follows a scheme is a part of the field; and texts that were packed come back, while what is
 * no pack is none.
 *
 * The input is the name of the cookie and a newline before the field.
 */
#include "../unit/modules/pure_host.h"

#include "../../modules/credential.h"

#define TEXTS 3

static void inside(weir_str part, weir_str whole)
{
        CHECK(part.p >= whole.p && part.p + part.n <= whole.p + whole.n);
}

/* The next pair that is there and has another name; 0 past the last. */
static int next_other(weir_str *rest, weir_str wanted, weir_str *pair)
{
        weir_str whole = *rest, name, value;

        while (credential_next_pair(rest, pair, &name, &value)) {
                inside(*pair, whole);
                inside(name, *pair);
                inside(value, *pair);
                if (pair->n > 0 && !weir_eq(name, wanted))
                        return 1;
        }
        return 0;
}

static void cookies(struct arena *a, weir_str wanted, weir_str field)
{
        weir_str left = credential_without(pure_task(a), field, wanted), one, other, name, value;

        CHECK(left.p != NULL && left.n <= 2 * field.n);
        for (weir_str rest = left; credential_next_pair(&rest, &one, &name, &value);)
                CHECK(!weir_eq(name, wanted));
        while (next_other(&field, wanted, &one)) {
                CHECK(next_other(&left, wanted, &other));
                CHECK(weir_eq(one, other));
        }
        CHECK(!next_other(&left, wanted, &other));
}

static void packs(struct arena *a, weir_str text, weir_str head)
{
        weir_str in[TEXTS] = {text, {NULL, 0}, head}, out[TEXTS], packed;

        packed = credential_pack(pure_task(a), head.p, head.n, in, TEXTS);
        CHECK(packed.p != NULL && credential_unpack(packed, head.n, out, TEXTS));
        CHECK(out[1].p == NULL);
        CHECK(weir_eq(out[0], text) && weir_eq(out[2], head));
        CHECK(!credential_unpack(packed, head.n, out, TEXTS - 1));
        if (credential_unpack(text, 0, out, TEXTS))
                for (int i = 0; i < TEXTS; i++)
                        if (out[i].p != NULL)
                                inside(out[i], text);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
        struct arena *a = arena_new(0);
        const uint8_t *end = size ? memchr(data, '\n', size) : NULL;
        weir_str name, field, value;

        if (end != NULL) {
                name = weir_bytes(data, (size_t)(end - data));
                field = weir_bytes(end + 1, size - name.n - 1);
                cookies(a, name, field);
                packs(a, field, name);
                if (credential_of_scheme(field, name, &value))
                        inside(value, field);
        }
        arena_free(a);
        return 0;
}
