/* From a model to a plan and back; and bytes that are no plan. */
#include "daemon/plan.c"

#include "../base/unit.h"

#include <sys/mman.h>

static struct conf model(struct listen_conf *listens, struct access_log_conf *logs,
                         struct module_conf *modules)
{
        struct conf c = {.threads = 3,
                         .workers = 2,
                         .has_user = true,
                         .uid = 7,
                         .gid = 8,
                         .log_level = 2,
                         .error_log = STR("/var/log/e"),
                         .pid_file = STR("/run/p"),
                         .control = STR("/run/c"),
                         .store_size = 5,
                         .max_connections = 6,
                         .shutdown_timeout = 30 * SEC,
                         .drain_delay = SEC,
                         .has_admin = true,
                         .listens = listens,
                         .n_listens = 2,
                         .access_logs = logs,
                         .n_access_logs = 1,
                         .modules = modules,
                         .n_modules = 1};

        assert_true(addr_parse(STR("127.0.0.1:9901"), &c.admin));
        assert_true(addr_parse(STR("127.0.0.1:80"), &listens[0].addr));
        assert_true(addr_parse(STR("[::]:443"), &listens[1].addr));
        listens[0].backlog = 10;
        listens[1].backlog = 20;
        listens[1].v6only = true;
        logs[0].path = STR("stdout");
        modules[0].name = STR("headers");
        modules[0].path = STR("/lib/headers.so");
        return c;
}

static int make_watching(struct arena *a, bool watch)
{
        struct listen_conf listens[2] = {0};
        struct access_log_conf logs[1] = {0};
        struct module_conf modules[1] = {0};
        struct conf c = model(listens, logs, modules);
        uint8_t shas[1][32];
        str error;
        int fd;

        struct listen_cert certs[2] = {
                {.cert = {STR("/c/one.pem"), STR("ONE")}, .key = {STR("/c/one.key"), STR("KEY")}},
                {.cert = {STR("/c/one.pem"), STR("ONE")}, .key = {STR("/c/two.key"), STR("")}}};
        listens[1].certs = certs;
        listens[1].n_certs = 2;
        listens[1].client_ca = (struct file_text){STR("/c/ca.pem"), STR("CA")};
        c.watch_certificates = watch;
        memset(shas, 0xab, sizeof(shas));
        fd = plan_make(&c, (const uint8_t(*)[32])shas, a, &error);
        assert_true(fd >= 0);
        return fd;
}

static int make(struct arena *a)
{
        return make_watching(a, true);
}

/* Each once, with the digest of what was read. */
static void what_is_watched(void **state)
{
        static const char *const paths[] = {"/c/one.pem", "/c/one.key", "/c/two.key", "/c/ca.pem"};
        struct arena *a = arena_new(0);
        struct plan_watched one;
        uint8_t sha[32];
        uint32_t at = 0;

        (void)state;
        for (int watch = 0; watch < 2; watch++) {
                int fd = make_watching(a, watch);
                struct plan *p = plan_map(fd);
                close(fd);
                assert_non_null(p);
                for (size_t i = 0; watch && i < COUNT(paths); i++) {
                        assert_true(plan_watched_next(p, &at, &one));
                        assert_string_equal(one.path, paths[i]);
                        if (i == 0) {
                                crypto_sha256(STR("ONE"), sha);
                                assert_memory_equal(one.sha, sha, sizeof(sha));
                        }
                }
                assert_false(plan_watched_next(p, &at, &one));
                plan_free(p);
        }
        arena_free(a);
}

static void a_plan_comes_back(void **state)
{
        struct arena *a = arena_new(0);
        int fd = make(a);
        struct plan *p = plan_map(fd);

        (void)state;
        close(fd);
        assert_non_null(p);
        assert_int_equal(p->head->threads, 3);
        assert_int_equal(p->head->workers, 2);
        assert_true(p->head->has_user && p->head->uid == 7 && p->head->gid == 8);
        assert_string_equal(p->head->error_log, "/var/log/e");
        assert_string_equal(p->head->pid_file, "/run/p");
        assert_string_equal(p->head->control, "/run/c");
        assert_int_equal(p->head->drain_delay, SEC);
        assert_int_equal(addr_port(&p->head->admin), 9901);
        assert_int_equal(p->head->n_listens, 2);
        assert_int_equal(addr_port(&p->listens[0].addr), 80);
        assert_int_equal(addr_port(&p->listens[1].addr), 443);
        assert_int_equal(p->listens[0].backlog, 10);
        assert_true(p->listens[1].v6only && !p->listens[0].v6only);
        assert_string_equal(p->logs[0].path, "stdout");
        assert_string_equal(p->modules[0].name, "headers");
        assert_string_equal(p->modules[0].path, "/lib/headers.so");
        assert_int_equal(p->modules[0].sha[31], 0xab);
        plan_free(p);
        arena_free(a);
}

static void a_path_that_is_too_long_is_named(void **state)
{
        struct arena *a = arena_new(0);
        char longer[PATH_MAX + 1];
        struct conf c = {0};
        str error = STR_NONE;

        (void)state;
        memset(longer, 'x', sizeof(longer));
        c.pid_file = str_of(longer, sizeof(longer));
        assert_int_equal(plan_make(&c, NULL, a, &error), -1);
        assert_true(str_starts(error, STR("pid_file")));
        arena_free(a);
}

/* The plan with one change, sealed again. */
static bool maps(str good, size_t at, const void *bytes, size_t n, size_t length)
{
        char *copy = malloc(good.n + 1);
        struct plan *p;
        str changed;
        int fd;

        assert_non_null(copy);
        memcpy(copy, good.p, good.n);
        copy[good.n] = 0;
        memcpy(copy + at, bytes, n);
        changed = str_of(copy, length);
        fd = memfd_make("x", &changed, 1);
        p = plan_map(fd);
        close(fd);
        plan_free(p);
        free(copy);
        return p != NULL;
}

static void damaged_plans_are_refused(void **state)
{
        struct arena *a = arena_new(0);
        int fd = make(a);
        str good = memfd_map(fd);
        static char full[PATH_MAX];
        const uint32_t many = UINT32_MAX, none = 0, family = 1000;

        (void)state;
        memset(full, 'x', sizeof(full));
#define AT(field) offsetof(struct plan_head, field)
        assert_true(maps(good, 0, good.p, 4, good.n));
        assert_false(maps(good, 0, good.p, 4, good.n - 1));
        assert_false(maps(good, 0, good.p, 4, good.n + 1));
        assert_false(maps(good, 0, good.p, 4, 10));
        assert_false(maps(good, 0, good.p, 4, 0));
        assert_false(maps(good, AT(magic), &none, 4, good.n));
        assert_false(maps(good, AT(size), &many, 4, good.n));
        assert_false(maps(good, AT(n_listens), &many, 4, good.n));
        assert_false(maps(good, AT(n_listens), &none, 4, good.n));
        assert_false(maps(good, AT(n_modules), &many, 4, good.n));
        assert_false(maps(good, AT(watched_bytes), &many, 4, good.n));
        assert_false(maps(good, good.n - 1, "x", 1, good.n)); /* no end of the last path */
        assert_false(maps(good, good.n - sizeof("/c/ca.pem"), "x", 1, good.n));
        assert_false(maps(good, AT(error_log), full, sizeof(full), good.n));
        assert_false(maps(good, AT(control), full, sizeof(full), good.n));
        assert_false(maps(good, AT(admin.len), &family, 4, good.n));
        assert_false(maps(good, sizeof(struct plan_head), &none, 4,
                          good.n)); /* a listener without address */
        assert_false(maps(good, sizeof(struct plan_head) + 2 * sizeof(struct plan_listen), full,
                          sizeof(full), good.n));
#undef AT
        memfd_unmap(good);
        close(fd);
        arena_free(a);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(a_plan_comes_back),
                cmocka_unit_test(what_is_watched),
                cmocka_unit_test(a_path_that_is_too_long_is_named),
                cmocka_unit_test(damaged_plans_are_refused),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
