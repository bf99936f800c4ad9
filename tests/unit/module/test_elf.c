/* ELF lint: each rule refuses the object that breaks it, and broken bytes never get through. */
#include "module/elf.c"

#include "fixture.h"

/* Something is exported, or it would be refused for that. */
#define EXPORT "__attribute__((visibility(\"default\"))) int entry;\n"

static bool lint(struct fixture *f, const char *flags, const char *source, struct elf_facts *facts,
                 struct elf_error *err)
{
        char *path = fixture_build(f, flags, source);
        str bytes = fixture_read(path);
        bool ok = elf_lint(bytes, facts, err);

        free((char *)bytes.p);
        free(path);
        return ok;
}

static void accepts_a_plain_module(void **state)
{
        struct elf_facts facts = {.pinned = "untouched"};
        struct elf_error err;

        assert_true(lint(*state, "-Wl,--build-id=sha1", FIXTURE_MODULE("m", "", ""), &facts, &err));
        assert_null(facts.pinned);
        assert_int_equal(strlen(facts.build_id), 40);
}

static void refuses_what_weakens_the_process(void **state)
{
        static const struct {
                const char *flags, *source, *says;
        } row[] = {
                {"-Wl,-z,execstack", EXPORT, "executable stack"},
                {"-nostdlib -Wl,-N", "int a = 1; int f(void) { return a; }",
                 "writable and executable"},
                {"-Wl,--no-as-needed -levent_core", EXPORT, "needs libevent_core-2.1.so.7"},
                {"",
                 EXPORT "void *dlopen(const char *, int); void *f(void) { return dlopen(0, 0); }"
                        "void *(*p)(const char *, int) = dlopen;",
                 "calls dlopen()"},
                {"", EXPORT "int fork(void); int (*p)(void) = fork;", "calls fork()"},
                {"",
                 EXPORT "int pthread_key_create(unsigned *, void (*)(void *));"
                        "int (*p)(unsigned *, void (*)(void *)) = pthread_key_create;",
                 "calls pthread_key_create()"},
                {"",
                 EXPORT "int sigaction(int, const void *, void *);"
                        "int (*p)(int, const void *, void *) = sigaction;",
                 "calls sigaction()"},
                {"-ftls-model=initial-exec",
                 "__attribute__((visibility(\"default\"))) __thread char big[65536];"
                 "__attribute__((visibility(\"default\"))) char *f(void) { return big; }",
                 "static thread-local storage"},
        };

        for (size_t i = 0; i < COUNT(row); i++) {
                struct elf_facts facts = {.pinned = "untouched"};
                struct elf_error err = {""};
                if (lint(*state, row[i].flags, row[i].source, &facts, &err))
                        fail_msg("taken although it %s", row[i].says);
                if (strstr(err.text, row[i].says) == NULL)
                        fail_msg("wanted \"%s\", got \"%s\"", row[i].says, err.text);
                assert_string_equal(facts.pinned, "untouched");
        }
}

static void tells_what_cannot_be_unloaded(void **state)
{
        struct elf_facts facts;
        struct elf_error err;

        assert_true(lint(*state, "-Wl,-z,nodelete", EXPORT, &facts, &err));
        assert_string_equal(facts.pinned, "it is marked nodelete");
        assert_true(lint(*state, "",
                         EXPORT
                         "__asm__(\".globl u\\n.type u,@gnu_unique_object\\n.data\\nu: .long "
                         "1\\n.size u,4\\n\");",
                         &facts, &err));
        assert_non_null(strstr(facts.pinned, "unique symbol"));
}

static void refuses_a_program_and_other_bytes(void **state)
{
        struct elf_facts facts;
        struct elf_error err;
        str self = fixture_read("/proc/self/exe");

        assert_false(elf_lint(self, &facts, &err));
        free((char *)self.p);
        assert_false(elf_lint(STR(""), &facts, &err));
        assert_false(elf_lint(STR("\177ELF"), &facts, &err));
        assert_string_equal(err.text, "is not an ELF file");
        assert_false(lint(*state, "", "int fork(void); int (*p)(void) = fork;", &facts, &err));
        assert_string_equal(err.text, "exports nothing (use WEIR_MODULE)");
}

/* Cut anywhere or with any byte turned over: never a crash (under ASan: never a read outside). */
static void survives_broken_files(void **state)
{
        char *path = fixture_build(*state, "", FIXTURE_MODULE("m", "", ""));
        str bytes = fixture_read(path);
        struct elf_facts facts;
        struct elf_error err;
        unsigned refused = 0;

        for (size_t n = 0; n < bytes.n; n += n < 4096 ? 1 : 97) {
                char *cut = malloc(n + 1);
                memcpy(cut, bytes.p, n);
                refused += !elf_lint(str_of(cut, n), &facts, &err);
                free(cut);
        }
        assert_true(refused > 4096);
        for (size_t i = 0; i < bytes.n; i += i < 4096 ? 1 : 13) {
                char *p = (char *)bytes.p, old = p[i];
                p[i] = (char)~old;
                refused += !elf_lint(bytes, &facts, &err);
                p[i] = old;
        }
        assert_true(elf_lint(bytes, &facts, &err));
        free((char *)bytes.p);
        free(path);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(accepts_a_plain_module),
                cmocka_unit_test(refuses_what_weakens_the_process),
                cmocka_unit_test(tells_what_cannot_be_unloaded),
                cmocka_unit_test(refuses_a_program_and_other_bytes),
                cmocka_unit_test(survives_broken_files),
        };
        return cmocka_run_group_tests(tests, fixture_begin, fixture_end);
}
