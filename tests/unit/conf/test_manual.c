/*
 * weir.conf(5) says what the tables say: each directive's part of the page is made from its rows
 * here and must stand there word for word.  With the argument "print" it prints these parts, to be
 * put into the page.
 */
#include "conf/conf.h"
#include "conf/directive.h"

#include "../base/unit.h"

#include <stdlib.h>

static const struct {
        enum context context;
        const char *title, *intro;
} sections[] = {
        {TOP, "AT THE TOP",
         "Outside of all blocks.  Of the directives that several kinds of block take, such as\n"
         ".BR timeout ,\n"
         "see SETTINGS."},
        {LISTEN, "IN A LISTEN BLOCK", "The block is optional."},
        {UPSTREAM, "IN AN UPSTREAM BLOCK", "Also: all SETTINGS but those of clients' heads."},
        {HOST, "IN A HOST BLOCK", "Also: SETTINGS."},
        {ROUTE, "IN A ROUTE BLOCK",
         "A route has one action:\n.BR proxy ,\n.B respond\nor\n.BR redirect ;\nor a function that "
         "always answers.  Also: SETTINGS."},
        {REDIS, "IN A REDIS BLOCK", "Functions use it as a store by its name."},
};

static void text(struct buf *out, const char *s)
{
        if (*s == '.' || *s == '\'')
                buf_printf(out, "\\&");
        for (; *s; s++) {
                if (*s == '\\')
                        buf_printf(out, "\\e");
                else if (*s == '-')
                        buf_printf(out, "\\-");
                else if (*s == '"')
                        buf_printf(out, "\\(dq");
                else if (*s == '\'')
                        buf_printf(out, "\\(aq");
                else if (*s == '~')
                        buf_printf(out, "\\(ti");
                else if (*s == '^')
                        buf_printf(out, "\\(ha");
                else
                        buf_put(out, s, 1);
        }
}

static const char *form_of(enum value_type type, const char *form)
{
        static const char *const forms[] = {
                [TYPE_TIME] = "TIME",   [TYPE_SIZE] = "SIZE",     [TYPE_COUNT] = "N",
                [TYPE_BOOL] = "on|off", [TYPE_SHARE] = "PERCENT", [TYPE_WORD] = "WORD",
                [TYPE_PATH] = "PATH",   [TYPE_FILE] = "FILE",     [TYPE_CAUSES] = "CAUSE,...",
        };

        return form ? form : forms[type];
}

static void contexts(struct buf *out, unsigned which)
{
        static const struct {
                enum context context;
                const char *name;
        } names[] = {{TOP, "top"},
                     {LISTEN, "listen"},
                     {HOST, "host"},
                     {UPSTREAM, "upstream"},
                     {ROUTE, "route"},
                     {REDIS, "redis"},
                     {HOST_TLS, "tls of a host"}};
        const char *comma = "";

        for (size_t i = 0; i < COUNT(names); i++) {
                if (!(which & names[i].context))
                        continue;
                buf_printf(out, "%s%s", comma, names[i].name);
                comma = ", ";
        }
}

static void keys(struct buf *out, const struct directive *d)
{
        bool any = false;

        for (size_t i = 0; i < directive_keys_n; i++) {
                const struct directive_key *k = &directive_keys[i];
                if (!(k->contexts & d->contexts) || strcmp(k->directive, d->name) != 0 ||
                    k->refused)
                        continue;
                buf_printf(out, any ? "" : ".RS\n");
                any = true;
                buf_printf(out, ".TP\n.BI %s= ", k->name);
                text(out, form_of(k->value.type, k->form));
                buf_printf(out, "%s\n", (k->value.flags & OFF) ? " |off" : "");
                text(out, k->help);
                if (k->value.dflt) {
                        buf_printf(out, " Default: ");
                        text(out, k->value.dflt);
                        buf_printf(out, ".");
                }
                if ((k->contexts & d->contexts) != d->contexts) {
                        buf_printf(out, " In: ");
                        contexts(out, k->contexts & d->contexts);
                        buf_printf(out, ".");
                }
                buf_printf(out, "\n");
        }
        buf_printf(out, any ? ".RE\n" : "");
}

/* The part of the page about one directive. */
static void part(struct buf *out, const struct directive *d)
{
        buf_printf(out, ".TP\n\\fB%s\\fR \\fI", d->name);
        if (d->value.size) {
                text(out, form_of(d->value.type, NULL));
                buf_printf(out, "%s%s", (d->value.flags & OFF) ? "|off" : "",
                           (d->value.flags & AUTO) ? "|auto" : "");
        } else {
                text(out, d->syntax);
        }
        buf_printf(out, "\\fR\n");
        text(out, d->help);
        buf_printf(out, "\n.br\nContext: ");
        contexts(out, d->contexts);
        buf_printf(out, ".");
        if (d->dflt) {
                buf_printf(out, " Default: ");
                text(out, d->dflt);
                buf_printf(out, ".");
        }
        buf_printf(out, "\n");
        keys(out, d);
        buf_printf(out, ".IP\n.EX\n");
        text(out, d->example);
        buf_printf(out, "\n.EE\n");
}

static bool several(unsigned which)
{
        which &= ~(unsigned)HOST_TLS; /* it takes what is written about listen */
        return (which & (which - 1)) != 0;
}

static void print_page(void)
{
        struct buf out = BUF_INIT;

        for (size_t s = 0; s < COUNT(sections); s++) {
                buf_printf(&out, ".SH %s\n%s\n", sections[s].title, sections[s].intro);
                for (size_t i = 0; i < directives_n; i++) {
                        if (!directives[i].refused && !several(directives[i].contexts) &&
                            (directives[i].contexts & ~(unsigned)HOST_TLS) == sections[s].context)
                                part(&out, &directives[i]);
                }
                if (s > 0)
                        continue;
                buf_printf(&out, ".SH SETTINGS\n@SETTINGS@\n");
                for (size_t i = 0; i < directives_n; i++) {
                        if (!directives[i].refused && several(directives[i].contexts))
                                part(&out, &directives[i]);
                }
        }
        fwrite(buf_pullup(&out, out.n).p, 1, out.n, stdout);
        buf_clear(&out);
}

static char *page;

static int load(void **state)
{
        char path[4096];
        const char *top = getenv("top_srcdir");
        long n;

        (void)state;
        snprintf(path, sizeof path, "%s/src/conf/weir.conf.5", top ? top : "..");
        FILE *f = fopen(path, "r");
        assert_non_null(f);
        assert_int_equal(fseek(f, 0, SEEK_END), 0);
        n = ftell(f);
        rewind(f);
        page = calloc(1, (size_t)n + 1);
        assert_int_equal(fread(page, 1, (size_t)n, f), (size_t)n);
        fclose(f);
        return 0;
}

static int unload(void **state)
{
        (void)state;
        free(page);
        return 0;
}

static void directives_are_there(void **state)
{
        (void)state;
        for (size_t i = 0; i < directives_n; i++) {
                struct buf out = BUF_INIT;
                if (directives[i].refused)
                        continue;
                part(&out, &directives[i]);
                char *want = str_dupz(buf_pullup(&out, out.n));
                if (!strstr(page, want))
                        fail_msg("weir.conf(5) lacks, or has otherwise:\n%s", want);
                free(want);
                buf_clear(&out);
        }
}

static void variables_are_there(void **state)
{
        static const struct {
                const char *name, *help;
        } variables[] = {
#define VARIABLE(id, name, when, help) {name, help},
#include "conf/variable.tbl"
#undef VARIABLE
        };

        (void)state;
        for (size_t i = 0; i < COUNT(variables); i++) {
                char want[64];
                snprintf(want, sizeof want, ".B $%s\n", variables[i].name);
                if (!strstr(page, want))
                        fail_msg("weir.conf(5) lacks $%s", variables[i].name);
        }
}

int main(int argc, char **argv)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(directives_are_there),
                cmocka_unit_test(variables_are_there),
        };

        if (argc > 1 && strcmp(argv[1], "print") == 0) {
                print_page();
                return 0;
        }
        return cmocka_run_group_tests(tests, load, unload);
}
