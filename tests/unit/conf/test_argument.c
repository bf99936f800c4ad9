/* Arguments of functions: every type and form, and where mistakes are shown. */
#include "conf/argument.c"
#include "conf/argument_value.c"

#include "../base/unit.h"
#include "memory.h"

struct op {
        int32_t verb, where;
        weir_str name;
        const weir_template *value;
};

struct claim {
        weir_str claim, variable;
};

struct edit {
        weir_str field;
        const weir_regex *match;
        const weir_template *by;
};

struct all {
        weir_list ops, claims, edits, types, sizes;
        weir_str word, field, secret;
        weir_text text;
        const weir_template *template;
        int32_t choice, flag;
        int64_t count, time, size;
        double number;
        weir_rate rate;
        weir_redis *redis, *store;
        weir_upstream *upstream;
};

static const weir_arg op_args[] = {
        WEIR_ARG(struct op, verb, ENUM, WEIR_VERB, NULL, "", .choices = "set add remove"),
        WEIR_ARG(struct op, where, ENUM, WEIR_BARE | WEIR_REQUIRED, NULL, "",
                 .choices = "request response"),
        WEIR_ARG(struct op, name, FIELD, WEIR_BARE | WEIR_REQUIRED, NULL, ""),
        WEIR_ARG(struct op, value, TEMPLATE, WEIR_BARE | WEIR_REQUIRED, NULL, ""),
};
static const weir_arg claim_args[] = {
        WEIR_ARG(struct claim, claim, STR, WEIR_BARE | WEIR_REQUIRED, NULL, ""),
        WEIR_LITERAL("as"),
        WEIR_ARG(struct claim, variable, VAR, WEIR_BARE, "who", ""),
};
static const weir_arg edit_args[] = {
        WEIR_ARG(struct edit, field, FIELD, WEIR_BARE | WEIR_REQUIRED, NULL, ""),
        WEIR_ARG(struct edit, match, REGEX, WEIR_BARE | WEIR_REQUIRED, NULL, ""),
        WEIR_ARG(struct edit, by, TEMPLATE, WEIR_BARE | WEIR_CAPTURES, "", ""),
};
static const weir_arg all_args[] = {
        WEIR_LINES("set", struct all, ops, 0, struct op, op_args, 4, ""),
        WEIR_LINES("add", struct all, ops, 0, struct op, op_args, 4, ""),
        WEIR_LINES("remove", struct all, ops, 0, struct op, op_args, 3, ""),
        WEIR_LINES("claim", struct all, claims, 0, struct claim, claim_args, 3, ""),
        WEIR_LINES("edit", struct all, edits, 0, struct edit, edit_args, 3, ""),
        WEIR_ARG(struct all, word, STR, WEIR_BARE, "none", ""),
        WEIR_LIST(struct all, types, STR, WEIR_BARE, "a b", ""),
        WEIR_LIST(struct all, sizes, SIZE, 0, NULL, ""),
        WEIR_ARG(struct all, field, FIELD, 0, "x-key", ""),
        WEIR_ARG(struct all, secret, STR, WEIR_SECRET, NULL, ""),
        WEIR_ARG(struct all, text, TEXT, 0, NULL, ""),
        WEIR_ARG(struct all, template, TEMPLATE, 0, "$client_ip", ""),
        WEIR_ARG(struct all, choice, ENUM, 0, "two", "", .choices = "one two three"),
        WEIR_ARG(struct all, flag, BOOL, 0, "on", ""),
        WEIR_ARG(struct all, count, INT, 0, "0", "", .min = 1, .max = 10),
        WEIR_ARG(struct all, time, TIME, 0, "5s", "", .min = 1000, .max = 10 * 1000000),
        WEIR_ARG(struct all, size, SIZE, WEIR_DEPRECATED, "8k", "use sizes"),
        WEIR_ARG(struct all, number, NUMBER, 0, "20%", ""),
        WEIR_ARG(struct all, rate, RATE, 0, "100/s", "", .min = 1, .max = 1000),
        WEIR_ARG(struct all, redis, REDIS, 0, NULL, ""),
        WEIR_ARG(struct all, store, STORE, 0, "local", ""),
        WEIR_ARG(struct all, upstream, UPSTREAM, 0, NULL, ""),
};

static const weir_module all_module = {.name = "all",
                                       .version = "1",
                                       .args = all_args,
                                       .n_args = WEIR_COUNT(all_args),
                                       .inst_size = sizeof(struct all)};

static const weir_arg limit_args[] = {
        WEIR_ARG(struct all, rate, RATE, WEIR_REQUIRED, NULL, ""),
        WEIR_ARG(struct all, template, TEMPLATE, 0, "$client_ip", ""),
};
static const weir_module limit_module = {.name = "ratelimit",
                                         .version = "1",
                                         .args = limit_args,
                                         .n_args = WEIR_COUNT(limit_args),
                                         .inst_size = sizeof(struct all),
                                         .named = "limit"};
static const weir_module answer_module = {
        .name = "answer", .version = "1", .flags = WEIR_ANSWERS, .inst_size = 1};

static const struct module *find(void *ctx, str name, const weir_module **desc)
{
        static const weir_module *const all[] = {&all_module, &limit_module, &answer_module};

        (void)ctx;
        for (size_t i = 0; i < WEIR_COUNT(all); i++) {
                if (str_eq(name, str_z(all[i]->name)))
                        *desc = all[i];
        }
        return NULL;
}

static const struct conf_handles handles = {.find = find};

#define HEAD                                                                                       \
        "module all; module ratelimit; module answer; redis main { server 127.0.0.1; } "           \
        "upstream u { server 127.0.0.1:1; }\n"

struct run {
        struct conf *c;
        struct report rep;
        bool ok;
};

static struct run run(const char *text)
{
        struct memory_entry files[] = {{"/w/weir.conf", text},
                                       {"/w/key", "s3cret$host\n"},
                                       {"/w/code", "one\ntwo\n"},
                                       {0}};
        struct memory m = MEMORY(files, NULL);
        struct run r = {0};

        r.c = conf_read(&m.source, STR("/w/weir.conf"), STR("/w"), &r.rep);
        if (r.c)
                r.ok = conf_link_functions(r.c, &handles, &r.rep);
        return r;
}

static void run_end(struct run *r)
{
        conf_free(r->c);
        buf_clear(&r->rep.out);
}

/* The instance of `function all ARGS` in a regex route. */
static const struct all *read_all(struct run *r, const char *args)
{
        char text[4096];
        snprintf(text, sizeof text,
                 HEAD "host * { route ~ '^/(?<id>.)' {\nfunction all %s\nrespond 204; } }", args);
        *r = run(text);
        if (!r->ok)
                fprintf(stderr, "%.*s", STR_ARG(buf_pullup(&r->rep.out, r->rep.out.n)));
        assert_true(r->ok);
        assert_int_equal(r->c->n_functions, 1);
        return r->c->functions[0]->inst;
}

static const struct template *template_of(const weir_template *t)
{
        return (const struct template *)(const void *)t;
}

static void defaults(void **state)
{
        struct run r;
        const struct all *a = read_all(&r, ";");

        (void)state;
        ASSERT_STR(a->word, "none");
        assert_int_equal(a->types.n, 2);
        ASSERT_STR(((const weir_str *)a->types.v)[1], "b");
        assert_int_equal(a->sizes.n, 0);
        assert_null(a->secret.p);
        assert_null(a->text.text.p);
        assert_int_equal(template_of(a->template)->op[0].var, VAR_CLIENT_IP);
        assert_int_equal(a->choice, 1);
        assert_int_equal(a->flag, 1);
        assert_int_equal(a->count, 0); /* a default is not held against the bounds */
        assert_int_equal(a->time, 5 * SEC);
        assert_int_equal(a->size, 8192);
        assert_true(a->number > 0.199 && a->number < 0.201);
        assert_int_equal(a->rate.count, 100);
        assert_int_equal(a->rate.per_us, SEC);
        assert_null(a->redis);
        assert_null(a->store);
        run_end(&r);
}

static void forms(void **state)
{
        static const char *const same[] = {
                "hello x y count=7 flag=off rate=20/60s choice=three sizes=\"1k 2k\" time=250ms;",
                "word=hello types=\"x y\" { count 7; flag off; rate 20/60s; choice three; sizes "
                "1k; "
                "sizes 2k; time 250ms; }",
                "{ word hello; types x y; count 7; flag off; rate 20/60s; choice three; sizes 1k "
                "2k; "
                "time 250ms; name n; on_error fail_open; }",
        };

        (void)state;
        for (size_t i = 0; i < WEIR_COUNT(same); i++) {
                struct run r;
                const struct all *a = read_all(&r, same[i]);
                ASSERT_STR(a->word, "hello");
                assert_int_equal(a->types.n, 2);
                ASSERT_STR(((const weir_str *)a->types.v)[1], "y");
                assert_int_equal(a->count, 7);
                assert_int_equal(a->flag, 0);
                assert_int_equal(a->rate.count, 20);
                assert_int_equal(a->rate.per_us, 60 * SEC);
                assert_int_equal(a->choice, 2);
                assert_int_equal(a->sizes.n, 2);
                assert_int_equal(((const int64_t *)a->sizes.v)[1], 2048);
                assert_int_equal(a->time, 250 * MSEC);
                run_end(&r);
        }
}

static void lines(void **state)
{
        struct run r;
        const struct all *a =
                read_all(&r, "claim=\"aud as who\" {\n"
                             "remove request x-a; add request x-a 1;\n"
                             "set response X-B \"name=$id\"; set where=response name=c value=$1;\n"
                             "claim sub as user; claim iss;\n"
                             "edit Location '^http://(?<h>[^/]+)' https://$h;\n"
                             "edit Via x; }");
        const struct op *op = a->ops.v;
        const struct claim *claim = a->claims.v;
        const struct edit *edit = a->edits.v;

        (void)state;
        assert_int_equal(a->ops.n, 4);
        assert_int_equal(op[0].verb, 2);
        ASSERT_STR(op[0].name, "x-a");
        assert_null(op[0].value);
        assert_int_equal(op[1].verb, 1);
        assert_int_equal(op[2].verb, 0);
        assert_int_equal(op[2].where, 1);
        assert_int_equal(template_of(op[2].value)->op[1].var, VAR_CAPTURE);
        ASSERT_STR(op[3].name, "c");
        assert_int_equal(a->claims.n, 3);
        ASSERT_STR(claim[0].variable, "all_who");
        ASSERT_STR(claim[1].claim, "sub");
        ASSERT_STR(claim[1].variable, "all_user");
        ASSERT_STR(claim[2].variable, "all_who");
        assert_non_null(map_get(r.c->variables, STR("all_user")));
        assert_int_equal(a->edits.n, 2);
        assert_int_equal(template_of(edit[0].by)->op[1].group, 1);
        assert_int_equal(template_of(edit[1].by)->n, 0);
        run_end(&r);
}

static void texts_and_handles(void **state)
{
        struct run r;
        const struct all *a = read_all(&r, "redis=main store=main upstream=u secret=${file:key} "
                                           "template=\"a${file:key}$id\" text=${file:code};");

        (void)state;
        assert_ptr_equal(a->redis, &r.c->redises[0]);
        assert_ptr_equal(a->store, &r.c->redises[0]);
        assert_ptr_equal(a->upstream, &r.c->upstreams[0]);
        ASSERT_STR(a->secret, "s3cret$host\n");
        assert_int_equal(template_of(a->template)->n, 2); /* what the file holds is no variable */
        ASSERT_STR(template_of(a->template)->op[0].text, "as3cret$host\n");
        ASSERT_STR(a->text.text, "one\ntwo\n");
        ASSERT_STR(a->text.file, "/w/code");
        assert_int_equal(a->text.line, 1);
        struct report in_file = {0};
        conf_function_error(r.c->functions[0], a->text.text.p + 5, &in_file, "bad");
        assert_true(str_find(buf_pullup(&in_file.out, in_file.out.n),
                             STR(": all: /w/code:2:2: bad\n")) >= 0);
        buf_clear(&in_file.out);
        run_end(&r);

        a = read_all(&r, "text=<<END\nfirst\n  second\nEND\n");
        ASSERT_STR(a->text.text, "first\n  second\n");
        ASSERT_STR(a->text.file, "/w/weir.conf");
        assert_int_equal(a->text.line, 4);
        struct report rep = {0};
        conf_function_error(r.c->functions[0], a->text.text.p + 8, &rep, "bad");
        str out = buf_pullup(&rep.out, rep.out.n);
        assert_true(str_starts(out, STR("/w/weir.conf:5:3: all: bad\n      second\n      ^\n")));
        buf_clear(&rep.out);
        run_end(&r);
}

static void errors_of_create(void **state)
{
        struct run r;
        const struct all *a = read_all(&r, "count=7 { set request x-a v; sizes 1k 2k; }");
        const struct op *op = a->ops.v;
        const struct {
                const void *at;
                const char *where;
        } cases[] = {{&a->count, "/w/weir.conf:3:20: all: no"},
                     {&op->name, "/w/weir.conf:3:36: all: no"},
                     {op->name.p + 2, "/w/weir.conf:3:38: all: no"},
                     {(const int64_t *)a->sizes.v + 1, "/w/weir.conf:3:52: all: no"},
                     {&a->flag, "/w/weir.conf:3:10: all: no"},
                     {NULL, "/w/weir.conf:3:10: all: no"}};

        (void)state;
        for (size_t i = 0; i < WEIR_COUNT(cases); i++) {
                struct report rep = {0};
                conf_function_error(r.c->functions[0], cases[i].at, &rep, "no");
                str out = buf_pullup(&rep.out, rep.out.n);
                if (!str_starts(out, str_z(cases[i].where)))
                        fail_msg("%zu: %.*s", i, STR_ARG(out));
                buf_clear(&rep.out);
        }
        run_end(&r);
}

/* Each has exactly one mistake, at the mark. */
static void mistakes(void **state)
{
        static const struct {
                const char *args, *message;
        } cases[] = {
                {"count=@11;", "count must be between 1 and 10"},
                {"count=@x;", "count: \"x\" is not a whole number"},
                {"time=@1us;", "time: \"1us\" is not a time"},
                {"time=@1h;", "time must be between 1ms and 10s"},
                {"rate=@0/s;", "rate must be between 1 and 1000"},
                {"rate=@10;", "rate: \"10\" is not a rate"},
                {"choice=@tow;",
                 "choice: \"tow\" is none of: one two three (did you mean \"two\"?)"},
                {"flag=@yes;", "flag: \"yes\" is not on or off"},
                {"number=@a;", "number: \"a\" is not a number"},
                {"field=\"@a b\";", "field: \"a b\" is not the name of a field"},
                {"field=@Content-Length;",
                 "field: weir itself decides on the field Content-Length"},
                {"template=@$hots;", "template: unknown variable $hots (did you mean \"$host\"?)"},
                {"template=\"a @$1\";",
                 "template: $1: only a regex route (route ~ ...) has captures"},
                {"redis=@mian;", "redis: there is no redis mian (did you mean \"main\"?)"},
                {"redis=@local;", "redis: there is no redis local"},
                {"upstream=@v;", "upstream: there is no upstream v (did you mean \"u\"?)"},
                {"{ @conut 3; }", "all has no parameter \"conut\" (did you mean \"count\"?)"},
                {"{ count 3; @count 4; }", "count is given twice"},
                {"count=3 { @count 4; }", "count is given twice"},
                {"{ count 3 @4; }", "count takes one word"},
                {"{ count@; }", "count needs a value"},
                {"{ count@ { } }", "count takes no block"},
                {"{ set@; }", "set needs where"},
                {"{ set request@; }", "set needs name"},
                {"{ set request a b @c; }", "set takes no \"c\" here"},
                {"{ set @reqest a b; }",
                 "where: \"reqest\" is none of: request response (did you mean"},
                {"{ claim a @b c; }", "\"as\" is expected in place of \"b\""},
                {"{ claim a as @b-c; }", "variable: \"b-c\" is not the name of a variable"},
                {"{ edit x '(@'; }", "match: the regex does not compile"},
                {"{ edit x '(a)' @$2; }", "by: $2: the route's regex has no such group"},
                {"name=\"@a b\";", "\"a b\" is not a name"},
                {"on_error=@open;", "on_error: \"open\" is neither"},
                {"timeout=1s @timeout=2s;", "timeout is given twice"},
        };

        (void)state;
        for (size_t i = 0; i < WEIR_COUNT(cases); i++) {
                char text[1024], want[256];
                const char *mark = strchr(cases[i].args, '@');
                size_t n = (size_t)(mark - cases[i].args);
                snprintf(text, sizeof text,
                         HEAD "host * { route / { function all %.*s%s respond 204; } }", (int)n,
                         cases[i].args, mark + 1);
                snprintf(want, sizeof want, "/w/weir.conf:2:%zu: %s", 33 + n, cases[i].message);
                struct run r = run(text);
                str out = buf_pullup(&r.rep.out, r.rep.out.n);
                if (r.ok || r.rep.errors != 1 || !str_starts(out, str_z(want)))
                        fail_msg("%s: %u mistakes, wanted %s\n%.*s", cases[i].args, r.rep.errors,
                                 want, STR_ARG(out));
                run_end(&r);
        }
}

static void deprecated(void **state)
{
        struct run r;

        (void)state;
        (void)read_all(&r, "size=1k;");
        assert_int_equal(r.rep.warnings, 1);
        assert_true(str_find(buf_front(&r.rep.out), STR("size is deprecated: use sizes")) > 0);
        run_end(&r);
}

static void secret_stays_secret(void **state)
{
        static const weir_arg args[] = {
                WEIR_ARG(struct all, count, INT, WEIR_SECRET, NULL, ""),
        };
        struct arena *a = arena_new(0);
        struct conf_pos pos = {STR("f"), 1, 1, STR_NONE};
        struct word w = argument_word(a, STR("hunter2"), &pos);
        struct report rep = {0};
        struct argument_places places = {0};
        struct function_conf f = {.places = &places};
        struct argument_env e = {.a = a, .rep = &rep, .f = &f};
        struct all inst;

        (void)state;
        argument_value(&e, &args[0], &w, &inst.count, true);
        assert_int_equal(rep.errors, 1);
        assert_true(str_find(buf_front(&rep.out), STR("hunter2")) < 0);
        buf_clear(&rep.out);
        arena_free(a);
}

static void named_blocks(void **state)
{
        struct run r =
                run(HEAD "limit slow { rate 5/s; template $host; timeout 1s; }\n"
                         "host * { route /a { function ratelimit slow; respond 204; }\n"
                         "route /b { function ratelimit slow on_error=fail_open; respond 204; }\n"
                         "route /c { function ratelimit rate=1/s; respond 204; } }");
        const struct route_conf *routes = r.c->hosts[0].routes;
        const struct function_conf *a = routes[0].functions[0], *b = routes[1].functions[0];

        (void)state;
        assert_true(r.ok);
        assert_int_equal(r.c->n_functions, 2);
        ASSERT_STR(r.c->functions[0]->name, "slow");
        assert_ptr_equal(a->shared, r.c->functions[0]);
        assert_ptr_equal(b->shared, r.c->functions[0]);
        assert_ptr_equal(a->inst, b->inst);
        assert_int_equal(a->timeout, 1 * SEC);
        assert_int_equal(a->on_error, ON_ERROR_FAIL_CLOSED);
        assert_int_equal(b->on_error, ON_ERROR_FAIL_OPEN);
        assert_ptr_equal(routes[2].functions[0]->shared, routes[2].functions[0]);
        ASSERT_STR(r.c->functions[1]->name, "* /c ratelimit");
        run_end(&r);
}

static void wrong_links(void **state)
{
        static const struct {
                const char *text, *message;
        } cases[] = {
                {"limt x { rate 1/s; }",
                 "2:1: unknown directive \"limt\" (did you mean \"limit\"?)"},
                {"limit x { rate 1/s; }\nlimit x { rate 1/s; }",
                 "3:7: limit x exists already (line 2)"},
                {"limit x { }", "2:8: ratelimit needs rate"},
                {"limit x { rate 1/s; name y; }", "2:7: the name of a limit stands before"},
                {"limit slow { rate 1/s; }\nhost * { route / { function ratelimit slwo; respond "
                 "204; } }",
                 "3:39: there is no limit slwo (did you mean \"slow\"?)"},
                {"limit x { rate 1/s; }\nhost * { route / { function ratelimit x rate=2/s; respond "
                 "204; } }",
                 "3:41: arguments belong into the block limit x"},
                {"host * { route / { function all; } }", "2:10: the route has no action, and none"},
                {"host * { route / { function all { claim a as user; } rewrite /$all_usr; proxy u; "
                 "} }",
                 "2:62: no function sets $all_usr (did you mean \"all_user\"?)"},
        };

        (void)state;
        for (size_t i = 0; i < WEIR_COUNT(cases); i++) {
                char text[1024], want[256];
                snprintf(text, sizeof text, HEAD "%s", cases[i].text);
                snprintf(want, sizeof want, "/w/weir.conf:%s", cases[i].message);
                struct run r = run(text);
                str out = buf_pullup(&r.rep.out, r.rep.out.n);
                if (r.ok || r.rep.errors != 1 || !str_starts(out, str_z(want)))
                        fail_msg("%s: wanted %s\n%.*s", cases[i].text, want, STR_ARG(out));
                run_end(&r);
        }
        struct run r =
                run(HEAD "host * { route / { function all { claim a as user; } function answer; }\n"
                         "route /x { rewrite /$all_user; proxy u; } }");
        assert_true(r.ok);
        run_end(&r);
}

/* What is known of a string that is written once. */
static const struct constant *constant(const struct run *r, const weir_str *s)
{
        return constants_find(r->c->functions[0]->constants, s->p, s->n);
}
static const struct constant *constant_value(const struct run *r, const struct op *op)
{
        str text = template_constant(template_of(op->value));
        return constants_find(r->c->functions[0]->constants, text.p, text.n);
}

static void constants(void **state)
{
        struct run r;
        const struct all *a = read_all(&r, "word { set request X-A 1; add response Server $host; "
                                           "set request x-b ' 2'; set request x-c \"a\nb\"; "
                                           "set request x-d \"\"; edit x-e b c; }");
        const struct op *op = a->ops.v;

        (void)state;
        assert_int_equal(a->ops.n, 5);
        for (size_t i = 0; i < a->ops.n; i++)
                assert_int_equal(constant(&r, &op[i].name)->flags, CONSTANT_NAME);
        assert_int_equal(constant(&r, &op[0].name)->id, FIELD_OTHER);
        assert_int_equal(constant(&r, &op[1].name)->id, FIELD_SERVER);
        assert_int_equal(constant_value(&r, &op[0])->flags, CONSTANT_VALUE);
        assert_null(constant_value(&r, &op[1])); /* a variable's name */
        assert_null(constant_value(&r, &op[2])); /* is sent without the blank */
        assert_null(constant_value(&r, &op[3])); /* cannot be sent */
        assert_null(constant_value(&r, &op[4]));
        assert_non_null(constant(&r, &((const struct edit *)a->edits.v)->field));
        assert_non_null(constant(&r, &a->field)); /* a default */
        assert_null(constant(&r, &a->word));
        run_end(&r);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(defaults),
                cmocka_unit_test(forms),
                cmocka_unit_test(lines),
                cmocka_unit_test(texts_and_handles),
                cmocka_unit_test(constants),
                cmocka_unit_test(errors_of_create),
                cmocka_unit_test(mistakes),
                cmocka_unit_test(deprecated),
                cmocka_unit_test(secret_stays_secret),
                cmocka_unit_test(named_blocks),
                cmocka_unit_test(wrong_links),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
