/*
 * Any bytes as a configuration: read, link, print; and what was right must be right when it is read
 * again.
 *
 * The input is the main file; behind a NUL stands what every other file holds.
 */
#include "conf/conf.h"

#include "base/check.h"

#include <stdlib.h>

struct op {
        int32_t verb;
        weir_str name;
        const weir_template *value;
};

struct inst {
        weir_list ops, list;
        weir_str word, key, var;
        weir_text text;
        const weir_template *template, *by;
        const weir_regex *regex;
        int32_t choice;
        int64_t count, time;
        weir_rate rate;
        weir_redis *store;
};

static const weir_arg op_args[] = {
        WEIR_ARG(struct op, verb, ENUM, WEIR_VERB, NULL, "", .choices = "set add"),
        WEIR_ARG(struct op, name, FIELD, WEIR_BARE | WEIR_REQUIRED, NULL, ""),
        WEIR_LITERAL("as"),
        WEIR_ARG(struct op, value, TEMPLATE, WEIR_BARE, "$host", ""),
};
static const weir_arg args[] = {
        WEIR_LINES("set", struct inst, ops, 0, struct op, op_args, 4, ""),
        WEIR_LINES("add", struct inst, ops, 0, struct op, op_args, 4, ""),
        WEIR_LIST(struct inst, list, STR, 0, "a b", ""),
        WEIR_ARG(struct inst, word, STR, 0, NULL, ""),
        WEIR_ARG(struct inst, key, STR, WEIR_SECRET, NULL, ""),
        WEIR_ARG(struct inst, var, VAR, 0, "v", ""),
        WEIR_ARG(struct inst, text, TEXT, 0, NULL, ""),
        WEIR_ARG(struct inst, template, TEMPLATE, 0, NULL, ""),
        WEIR_ARG(struct inst, regex, REGEX, 0, NULL, ""),
        WEIR_ARG(struct inst, by, TEMPLATE, WEIR_CAPTURES, NULL, ""),
        WEIR_ARG(struct inst, choice, ENUM, 0, "b", "", .choices = "a b"),
        WEIR_ARG(struct inst, count, INT, 0, "1", "", .min = 1, .max = 9),
        WEIR_ARG(struct inst, time, TIME, 0, "1s", ""),
        WEIR_ARG(struct inst, rate, RATE, 0, "1/s", ""),
        WEIR_ARG(struct inst, store, STORE, 0, "local", ""),
};
static const weir_module module = {.name = "echo",
                                   .version = "1",
                                   .flags = WEIR_ANSWERS,
                                   .args = args,
                                   .n_args = WEIR_COUNT(args),
                                   .inst_size = sizeof(struct inst),
                                   .named = "limit"};

static const struct module *find(void *ctx, str name, const weir_module **desc)
{
        (void)ctx;
        (void)name;
        *desc = &module;
        return NULL;
}

static const struct conf_handles handles = {.find = find};

/* ------------------------------------------------------------------ a source of two texts */

struct two {
        struct source source;
        str main, other;
};

static bool two_file(struct source *s, str path, struct arena *a, str *content, str *error)
{
        struct two *t = (struct two *)s;

        if (path.n > 40) {
                *error = STR("too long");
                return false;
        }
        *content = arena_dup(a, str_eq(path, STR("/w/main")) ? t->main : t->other);
        return true;
}

static bool two_glob(struct source *s, str pattern, struct arena *a, str **paths, size_t *n)
{
        (void)s;
        *paths = ARENA_ARRAY(a, str, 1);
        (*paths)[0] = STR("/w/found");
        *n = pattern.n % 2;
        return true;
}

static bool two_env(struct source *s, str name, str *value)
{
        *value = ((struct two *)s)->other;
        return name.n % 2;
}

static bool two_user(struct source *s, str user, str group, uint32_t *uid, uint32_t *gid)
{
        (void)s;
        *uid = *gid = 1;
        return user.n % 2 && group.n % 2 == 0;
}

static struct conf *read_two(str main, str other, struct report *rep)
{
        struct two t = {{two_file, two_glob, two_env, two_user}, main, other};
        struct conf *c = conf_read_all(&t.source, STR("/w/main"), STR("/w"), rep);

        CHECK(c != NULL);
        bool linked = conf_link_functions(c, &handles, rep);
        CHECK(linked || rep->errors > 0);
        return c;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
        str main = str_of(data, size), other = STR("");
        struct report rep = {0}, again = {0};
        struct buf out = BUF_INIT;

        (void)str_cut(main, '\0', &main, &other);
        struct conf *c = read_two(main, other.p ? other : STR(""), &rep);
        CHECK((rep.errors + rep.warnings > 0) == (rep.out.n > 0));
        if (rep.errors == 0) {
                conf_dump(c, &out);
                str text = buf_pullup(&out, out.n);
                if (str_find(text, STR("${env:")) < 0 && str_find(text, STR("${file:")) < 0 &&
                    str_chr(text, '\0') < 0) {
                        struct conf *d = read_two(text, other.p ? other : STR(""), &again);
                        if (again.errors)
                                abort();
                        conf_free(d);
                }
        }
        conf_free(c);
        buf_clear(&rep.out);
        buf_clear(&again.out);
        buf_clear(&out);
        return 0;
}
