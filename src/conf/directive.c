/*
 * The rows of directive.tbl as two arrays, and looking things up in them.
 *
 * The difficulty: one name can mean two things in two kinds of block (timeout, tls, server), so
 * a directive is found by its name and its context, and a key by its directive as well.
 */
#include "conf/directive.h"

#define FIELD_OF(type, field) offsetof(type, field), sizeof(((type *)0)->field)

const struct directive directives[] = {
#define DIRECTIVE(ctx, name, fn, min, max, flags, syntax, dflt, help, example)                     \
        {ctx,    name, fn,   min,    max, flags, false, {TYPE_NONE, 0, 0, 0, 0, 0, -1, NULL},      \
         syntax, dflt, help, example},
#define VALUE(ctx, name, type, strct, field, min, max, flags, dflt, help, example)                 \
        {ctx,                                                                                      \
         name,                                                                                     \
         compile_value,                                                                            \
         1,                                                                                        \
         1,                                                                                        \
         0,                                                                                        \
         false,                                                                                    \
         {TYPE_##type, FIELD_OF(struct strct, field), min, max, flags, -1, dflt},                  \
         NULL,                                                                                     \
         dflt,                                                                                     \
         help,                                                                                     \
         example},
#define SETTING(ctx, name, type, field, bit, min, max, flags, dflt, help, example)                 \
        {ctx,                                                                                      \
         name,                                                                                     \
         compile_value,                                                                            \
         1,                                                                                        \
         1,                                                                                        \
         0,                                                                                        \
         false,                                                                                    \
         {TYPE_##type, FIELD_OF(struct settings, field), min, max, flags, bit, dflt},              \
         NULL,                                                                                     \
         dflt,                                                                                     \
         help,                                                                                     \
         example},
#define REFUSED(ctx, name)                                                                         \
        {ctx,  name, NULL, 0,   0, 0, true, {TYPE_NONE, 0, 0, 0, 0, 0, -1, NULL},                  \
         NULL, NULL, NULL, NULL},
#define KEY(...)
#define SETTING_KEY(...)
#define WORD_KEY(...)
#define REFUSED_KEY(...)
#include "conf/directive.tbl"
#undef DIRECTIVE
#undef VALUE
#undef SETTING
#undef REFUSED
#undef KEY
#undef SETTING_KEY
#undef WORD_KEY
#undef REFUSED_KEY
};
const size_t directives_n = COUNT(directives);

const struct directive_key directive_keys[] = {
#define DIRECTIVE(...)
#define VALUE(...)
#define SETTING(...)
#define REFUSED(...)
#define KEY(ctx, directive, name, type, strct, field, min, max, flags, dflt, help)                 \
        {ctx,                                                                                      \
         directive,                                                                                \
         name,                                                                                     \
         false,                                                                                    \
         {TYPE_##type, FIELD_OF(struct strct, field), min, max, flags, -1, dflt},                  \
         NULL,                                                                                     \
         help},
#define SETTING_KEY(ctx, directive, name, type, field, bit, min, max, flags, dflt, help)           \
        {ctx,                                                                                      \
         directive,                                                                                \
         name,                                                                                     \
         false,                                                                                    \
         {TYPE_##type, FIELD_OF(struct settings, field), min, max, flags, bit, dflt},              \
         NULL,                                                                                     \
         help},
#define WORD_KEY(ctx, directive, name, form, flags, dflt, help)                                    \
        {ctx, directive, name, false, {TYPE_NONE, 0, 0, 0, 0, flags, -1, dflt}, form, help},
#define REFUSED_KEY(ctx, directive, name)                                                          \
        {ctx, directive, name, true, {TYPE_NONE, 0, 0, 0, 0, 0, -1, NULL}, NULL, NULL},
#include "conf/directive.tbl"
#undef DIRECTIVE
#undef VALUE
#undef SETTING
#undef REFUSED
#undef KEY
#undef SETTING_KEY
#undef WORD_KEY
#undef REFUSED_KEY
};
const size_t directive_keys_n = COUNT(directive_keys);

const struct directive *directive_find(unsigned context, str name)
{
        for (size_t i = 0; i < directives_n; i++) {
                if ((directives[i].contexts & context) && str_eq(name, str_z(directives[i].name)))
                        return &directives[i];
        }
        return NULL;
}

static bool key_of(const struct directive_key *k, const struct directive *d, unsigned context)
{
        return (k->contexts & d->contexts & context) && strcmp(k->directive, d->name) == 0;
}

const struct directive_key *directive_key_find(const struct directive *d, unsigned context,
                                               str name)
{
        for (size_t i = 0; i < directive_keys_n; i++) {
                const struct directive_key *k = &directive_keys[i];
                if (key_of(k, d, context) && str_eq(name, str_z(k->name)))
                        return k;
        }
        return NULL;
}

size_t directive_names(unsigned context, str *names, size_t max)
{
        size_t n = 0;

        for (size_t i = 0; i < directives_n && n < max; i++) {
                if ((directives[i].contexts & context) && !directives[i].refused)
                        names[n++] = str_z(directives[i].name);
        }
        if (n < max)
                names[n++] = STR("include");
        return n;
}

size_t directive_key_names(const struct directive *d, unsigned context, str *names, size_t max)
{
        size_t n = 0;

        for (size_t i = 0; i < directive_keys_n && n < max; i++) {
                if (key_of(&directive_keys[i], d, context) && !directive_keys[i].refused)
                        names[n++] = str_z(directive_keys[i].name);
        }
        return n;
}

const char *directive_context_name(unsigned context)
{
        static const struct {
                enum context context;
                const char *name;
        } names[] = {{TOP, "the top"},
                     {LISTEN, "a listen block"},
                     {HOST, "a host block"},
                     {ROUTE, "a route block"},
                     {UPSTREAM, "an upstream block"},
                     {REDIS, "a redis block"},
                     {HOST_TLS, "the tls block of a host"}};

        for (size_t i = 0; i < COUNT(names); i++) {
                if (names[i].context & context)
                        return names[i].name;
        }
        return "nowhere";
}
