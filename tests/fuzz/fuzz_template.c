/*
 * Any bytes as a template: compiled with a route's captures, expanded, and compiled again from its
 * own source.
 */
#include "conf/template.h"

#include "base/check.h"

static bool any(void *ctx, str name)
{
        (void)ctx;
        return str_starts(name, STR("jwt_"));
}

static str lookup(void *ctx, const struct template_op *op)
{
        (void)ctx;
        CHECK(!op->literal);
        CHECK(op->var != VAR_CAPTURE || op->group > 0);
        return op->var % 3 ? op->text : STR_NONE;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
        struct arena *a = arena_new(0), *out = arena_new(4096);
        struct regex_error regex_error;
        struct regex *re =
                size && data[0] % 2 ? regex_new(STR("(?<id>.)(?<rest>.*)"), 0, &regex_error) : NULL;
        struct template_scope scope = {re, size && data[0] & 2, any, NULL};
        str text = str_of(data + (size > 0), size - (size > 0));
        const char *error = NULL;
        size_t at = 0;
        struct template *t = template_compile(a, text, &scope, &error, &at);

        if (t) {
                CHECK(str_eq(t->source, text));
                for (uint32_t i = 1; i < t->n; i++)
                        CHECK(!(t->op[i - 1].literal && t->op[i].literal));
                size_t before = arena_used(out);
                str s = template_expand(t, out, lookup, NULL);
                CHECK(t->n > 1 || (s.p && arena_used(out) == before));
        } else {
                CHECK(error != NULL && at < text.n);
        }
        regex_free(re);
        arena_free(a);
        arena_free(out);
        return 0;
}
