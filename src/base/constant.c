/*
 * The table of constants: built once, looked into all the time.
 *
 * The difficulty: addresses in one arena are alike in their low and their high bits, so the place
 * is taken from the upper bits of a product.
 */
#include "base/constant.h"

#include "base/check.h"

static void add(struct constants *all, const struct constant *one)
{
        struct constant *c = &all->v[constants_place(all, one->p)];

        while (c->p != NULL && !(c->p == one->p && c->n == one->n))
                c++;
        if (c->p == NULL) {
                *c = *one;
                return;
        }
        CHECK(c->id == one->id || c->id == 0 || one->id == 0);
        c->id |= one->id;
        c->flags |= one->flags;
}

const struct constants *constants_new(struct arena *a, const struct constant *v, size_t n)
{
        unsigned bits = 1;
        struct constants *all;

        while ((size_t)1 << bits < 2 * n)
                bits++;
        all = arena_zalloc(a, sizeof(*all) + (((size_t)1 << bits) + n + 1) * sizeof(*v));
        all->shift = 64 - bits;
        for (size_t i = 0; i < n; i++) {
                CHECK(v[i].p != NULL);
                add(all, &v[i]);
        }
        return all;
}
