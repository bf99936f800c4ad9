/* The cases of the modules that ship hold, and one that does not is an error with its name. */
#include "proxy/cases.c"

#include "../module/fixture.h"

#include "base/crypto.h"

static struct module *open_built(const char *name, struct arena *a)
{
        const char *top = getenv("top_builddir");
        str error = STR_NONE,
            path = arena_printf(a, "%s/modules/.libs/%s.so", top ? top : ".", name);
        struct module_file file = {
                .name = str_z(name), .origin = path, .path = path.p, .bytes = fixture_read(path.p)};
        struct module *m = module_open(&file, &api_host, a, &error);

        free((char *)file.bytes.p);
        if (m == NULL)
                fail_msg("%.*s", STR_ARG(error));
        return m;
}

/* The module's section of weir-functions(7). */
static str section_of(str page, const char *module, struct arena *a)
{
        char *title = arena_dupz(a, arena_printf(a, "\n.SH %s\n", module));
        ptrdiff_t from, next;

        for (char *p = title + 5; *p != '\0'; p++)
                if (*p >= 'a' && *p <= 'z')
                        *p -= 'a' - 'A';
        from = str_find(page, str_z(title));
        if (from < 0)
                fail_msg("weir-functions(7) lacks%s", title);
        page = str_from(page, (size_t)from + 5);
        next = str_find(page, STR("\n.SH "));
        return next < 0 ? page : str_head(page, (size_t)next);
}

/* Every parameter is described, and those of a line are named. */
static void described(str section, const weir_arg *args, size_t n, bool in_line, struct arena *a)
{
        for (size_t i = 0; i < n; i++) {
                const weir_arg *arg = &args[i];
                if (in_line ? !(arg->flags & (WEIR_VERB | WEIR_BARE)) &&
                                      str_find(section, arena_printf(a, "%s=", arg->name)) < 0
                            : str_find(section, arena_printf(a, "\n.BI %s= ", arg->name)) < 0 &&
                                      str_find(section, arena_printf(a, "\n.BI \"%s ", arg->name)) <
                                              0)
                        fail_msg("weir-functions(7): %.*s lacks %s", STR_ARG(str_head(section, 12)),
                                 arg->name);
                if (arg->type == WEIR_T_LINE)
                        described(section, arg->line, arg->n_line, true, a);
        }
}

static void shipped(const char *name)
{
        struct arena *a = arena_new(0);
        struct module *m = open_built(name, a);
        struct report rep = {.out = BUF_INIT};
        const char *top = getenv("top_srcdir");
        str page =
                fixture_read(arena_printf(a, "%s/src/module/weir-functions.7", top ? top : ".").p);

        described(section_of(page, name, a), m->desc->args, m->desc->n_args, false, a);
        assert_true(m->desc->n_cases > 0);
        cases_run(m, NULL, &rep);
        if (rep.errors != 0)
                fail_msg("%.*s", STR_ARG(buf_pullup(&rep.out, rep.out.n)));
        assert_null(loop_self);
        free((char *)page.p);
        module_drop(m);
        arena_free(a);
}

static void headers(void **state)
{
        (void)state;
        shipped("headers");
}

static void ratelimit(void **state)
{
        (void)state;
        shipped("ratelimit");
}

static void compress(void **state)
{
        (void)state;
        shipped("compress");
}

static void rewrite_body(void **state)
{
        (void)state;
        shipped("rewrite_body");
}

static void auth_request(void **state)
{
        (void)state;
        shipped("auth_request");
}

static void cors(void **state)
{
        (void)state;
        shipped("cors");
}

static void basic_auth(void **state)
{
        (void)state;
        shipped("basic_auth");
}

static void api_key(void **state)
{
        (void)state;
        shipped("api_key");
}

static void jwt(void **state)
{
        (void)state;
        shipped("jwt");
}

#define HEAD                                                                                       \
        "#include <weir/module.h>\n"                                                               \
        "static weir_rc done(weir_task *t, const void *i, void *c, void *arg)"                     \
        "{ (void)t, (void)i, (void)c, (void)arg; return WEIR_CONTINUE; }\n"                        \
        "static weir_rc hook(weir_req *r, const void *i, void *c) { (void)i, (void)c;"             \
        " weir->header_set(r, WEIR_REQUEST, WEIR_STR(\"x\"), WEIR_STR(\"1\"));"                    \
        " return weir->timer(r, 1000000, done, NULL); }\n"
#define CASE(config, request, expect)                                                              \
        "static const weir_case cases[] = {{.name = \"one\", .config = \"" config                  \
        "\", .request = \"" request "\", .expect = \"" expect "\"}};\n"                            \
        "WEIR_MODULE(.name = \"m\", .version = \"1\", WEIR_CASES(cases), .on_request = hook);\n"
#define GET   "GET / HTTP/1.1\\nhost: a\\n\\n"
#define GET_C "GET / HTTP/1.1\nhost: a\n\n"

#define ASKS(http, expect)                                                                         \
        "#include <weir/module.h>\n"                                                               \
        "struct conf { weir_upstream *u; };"                                                       \
        "static const weir_arg args[] = { WEIR_ARG(struct conf, u, UPSTREAM, 0, \"main\", \"\") "  \
        "};"                                                                                       \
        "static weir_rc done(weir_task *r, const void *i, void *c, const weir_http_res *res,"      \
        " void *arg) { (void)i, (void)c, (void)arg; return weir->respond(r, 200,"                  \
        " weir->format(r, \"%d %d %.*s\", res->status, res->error, WEIR_S(res->body))); }"         \
        "static weir_rc hook(weir_req *r, const void *i, void *c) { const struct conf *f = i;"     \
        " static const weir_kv kv = {WEIR_STR(\"X-A\"), WEIR_STR(\"b\")}; (void)c;"                \
        " return weir->http(r, f->u, WEIR_HTTP(.path = WEIR_STR(\"/p\"),"                          \
        " .method = WEIR_STR(\"POST\"), .body = WEIR_STR(\"ask\"), .fields = &kv, .n_fields = 1,"  \
        " .max_body = 10), done, NULL); }\n"                                                       \
        "static const weir_case cases[] = {{.name = \"one\", .http = \"" http                      \
        "\", .expect = \"respond 200\\n" expect "\"}};\n"                                          \
        "WEIR_MODULE(.name = \"m\", .version = \"1\", WEIR_ARGS(struct conf, args),"               \
        " WEIR_CASES(cases), .on_request = hook);\n"

/* What is wrong must be said, and what is right must not. */
static void expectations(void **state)
{
        static const struct {
                const char *source, *says; /* NULL: nothing is wrong */
        } row[] = {
                {HEAD CASE("", GET, "continue\\nreq x: 1\\nreq -y"), NULL},
                {HEAD CASE("", GET "-- 2s\\n" GET, "continue\\n--\\ncontinue"), NULL},
                {HEAD CASE("", GET, "respond 200"),
                 "module m: its case \"one\" failed: wanted \"respond 200\", got "
                 "\"continue\""},
                {HEAD CASE("", GET, "req x: 2"), "wanted \"req x: 2\""},
                {HEAD CASE("", GET, "res x: 1"), "wanted \"res x: 1\""},
                {HEAD CASE("", GET, "req -x"), "wanted \"req -x\""},
                {HEAD CASE("", GET, "var m_x=1"), "wanted \"var m_x=1\""},
                {HEAD CASE("", GET, "body x"), "wanted \"body x\""},
                {HEAD CASE("", GET, "redis GET k"), "wanted \"redis GET k\""},
                {HEAD CASE("", GET "--\\n" GET, "continue"),
                 "nothing is expected of its request 2"},
                {HEAD CASE("", GET "-- soon\\n" GET, "continue\\n--\\ncontinue"), "is no time"},
                {HEAD CASE("", "GET\\n\\n", "continue"), "its request is malformed"},
                {HEAD CASE("nonsense=1", GET, "continue"), "its configuration was refused"},
                {ASKS("HTTP/1.1 201 Made\\nx: y\\n\\nso",
                      "body 201 0 so\\nhttp POST /p\\nhttp x-a: b"
                      "\\nhttp host: main\\nhttp body ask"),
                 NULL},
                {ASKS("!", "body 0 -7 no answer"), NULL},
                {ASKS("~", "body 0 -8 no answer"), NULL},
                {ASKS("HTTP/1.1 200 OK\\n\\n01234567890", "body 0 -5 no answer"), NULL},
                {ASKS("HTTP/1.1 200 OK\\n\\n", "http GET /p"), "wanted \"http GET /p\""},
                {ASKS("HTTP/1.1 200 OK\\n\\n", "http x-a: c"), "wanted \"http x-a: c\""},
                {ASKS("HTTP 200", "body x"), "http: its answer is malformed"},
        };

        for (size_t i = 0; i < COUNT(row); i++) {
                struct arena *a = arena_new(0);
                char *path = fixture_build(*state, "", row[i].source);
                str error = STR_NONE, said;
                struct module_file file = {.name = STR("m"),
                                           .origin = STR("m.so"),
                                           .path = path,
                                           .bytes = fixture_read(path)};
                struct module *m = module_open(&file, &api_host, a, &error);
                struct report rep = {.out = BUF_INIT};

                assert_non_null(m);
                cases_run(m, NULL, &rep);
                said = buf_pullup(&rep.out, rep.out.n);
                assert_int_equal(rep.errors, row[i].says != NULL);
                if (row[i].says != NULL && str_find(said, str_z(row[i].says)) < 0)
                        fail_msg("wanted \"%s\", got \"%.*s\"", row[i].says, STR_ARG(said));
                buf_clear(&rep.out);
                module_drop(m);
                free((char *)file.bytes.p);
                free(path);
                arena_free(a);
        }
}

/* A job every ten seconds that asks Redis: it is answered while time passes, as often as it asks.
 */
static void work_behind_the_requests(void **state)
{
        static const char source[] =
                "#include <weir/module.h>\n"
                "struct s { weir_redis *r; };\n"
                "static weir_fn job;\n"
                "static weir_rc got(weir_task *t, const void *i, void *c, const weir_value *v, "
                "void *a)"
                "{ (void)i, (void)c, (void)a; weir->local_set(t, WEIR_STR(\"k\"), v->str, 0);"
                " return weir->spawn(t, 10000000, job, NULL, 0); }\n"
                "static weir_rc job(weir_task *t, const void *i, void *c, void *a) { (void)c, "
                "(void)a;"
                " return weir->redis(t, *(weir_redis *const *)i, got, NULL, "
                "WEIR_ARGV(WEIR_STR(\"GET\")));"
                " }\n"
                "static const weir_arg args[] = {WEIR_ARG_AS(\"store\", struct s, r, REDIS, 0, "
                "\"main\","
                " \"\")};\n"
                "static weir_err create(weir_conf *c, void *i)"
                "{ (void)i; return weir->spawn(c, 0, job, NULL, 0); }\n"
                "static weir_rc hook(weir_req *r, const void *i, void *c) { (void)i, (void)c; "
                "weir_str v;"
                " return weir->respond(r, 200, weir->local_get(r, WEIR_STR(\"k\"), &v) ? v"
                " : WEIR_STR(\"none\")); }\n"
                "static const weir_case cases[] = {{.name = \"one\", .redis = "
                "\"$a\\n$b\\n$c\\n$d\","
                " .request = \"" GET "-- 1s\\n" GET "-- 25s\\n" GET "\","
                " .expect = \"body none\\n--\\nbody a\\n--\\nbody c\"}};\n"
                "WEIR_MODULE(.name = \"m\", .version = \"1\", WEIR_ARGS(struct s, args),"
                " WEIR_CASES(cases), .create = create, .on_request = hook);\n";
        char *path = fixture_build(*state, "", source);
        struct arena *a = arena_new(0);
        struct module_file file = {.name = STR("m"), .origin = STR("m.so")};
        struct report rep = {.out = BUF_INIT};
        struct module *m;
        str error = STR_NONE;

        file.path = path;
        file.bytes = fixture_read(path);
        m = module_open(&file, &api_host, a, &error);
        assert_non_null(m);
        cases_run(m, NULL, &rep);
        if (rep.errors != 0)
                fail_msg("%.*s", STR_ARG(buf_pullup(&rep.out, rep.out.n)));
        buf_clear(&rep.out);
        module_drop(m);
        free((char *)file.bytes.p);
        free(path);
        arena_free(a);
}

/* A failure tells which place of the case it is about. */
static void failures_have_a_place(void **state)
{
        static const weir_case row[] = {
                {.name = "a", .request = GET_C, .expect = "continue\nreq x: 2"},
                {.name = "b", .request = GET_C, .redis = NULL, .config = "{\nnonsense 1;\n}"},
                {.name = "c", .request = "GET\n\n", .expect = "continue"},
        };
        static const char *const at[] = {"req x: 2", "nonsense 1;\n}", "GET\n\n"};
        struct arena *a = arena_new(0);
        char *path = fixture_build(*state, "", HEAD CASE("", GET, "continue"));
        struct module_file file = {
                .name = STR("m"), .origin = STR("m.so"), .path = path, .bytes = fixture_read(path)};
        str error = STR_NONE;
        struct module *m = module_open(&file, &api_host, a, &error);

        assert_non_null(m);
        log_level = LOG_NONE;
        for (size_t i = 0; i < COUNT(row); i++) {
                struct case_result r;
                cases_one(m, &row[i], a, &r);
                assert_non_null(r.why.p);
                assert_string_equal(r.at, at[i]);
                assert_int_equal(r.wanted.p != NULL, i == 0);
                if (i == 0)
                        ASSERT_STR(r.got, "req x: 1");
        }
        log_level = LOG_ERROR;
        module_drop(m);
        free((char *)file.bytes.p);
        free(path);
        arena_free(a);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(headers),
                cmocka_unit_test(ratelimit),
                cmocka_unit_test(auth_request),
                cmocka_unit_test(cors),
                cmocka_unit_test(basic_auth),
                cmocka_unit_test(api_key),
                cmocka_unit_test(jwt),
                cmocka_unit_test(compress),
                cmocka_unit_test(rewrite_body),
                cmocka_unit_test(expectations),
                cmocka_unit_test(work_behind_the_requests),
                cmocka_unit_test(failures_have_a_place),
        };
        crypto_init();
        log_level = LOG_ERROR;
        return cmocka_run_group_tests(tests, fixture_begin, fixture_end);
}
