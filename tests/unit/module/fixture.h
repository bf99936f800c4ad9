/*
 * Shared objects for the tests of module, built from a few lines of C with the system's compiler.
 */
#ifndef UNIT_MODULE_FIXTURE_H
#define UNIT_MODULE_FIXTURE_H

#include "../base/unit.h"

#include "base/str.h"

#include <stdlib.h>

struct fixture {
        char dir[64];
        unsigned n;
};

__attribute__((unused)) static int fixture_begin(void **state)
{
        struct fixture *f = calloc(1, sizeof(*f));

        strcpy(f->dir, "/tmp/weir-module-XXXXXX");
        assert_non_null(mkdtemp(f->dir));
        *state = f;
        return 0;
}

__attribute__((unused)) static int fixture_end(void **state)
{
        struct fixture *f = *state;
        char command[128];

        snprintf(command, sizeof(command), "rm -rf %s", f->dir);
        assert_int_equal(system(command), 0);
        free(f);
        return 0;
}

/* The path of a shared object made of source (malloc'd), under a name that was never used before.
 */
__attribute__((unused)) static char *fixture_build(struct fixture *f, const char *flags,
                                                   const char *source)
{
        char command[1024], *path;
        const char *top = getenv("top_srcdir");
        FILE *c;

        assert_true(asprintf(&path, "%s/m%u.so", f->dir, f->n++) > 0);
        snprintf(
                command, sizeof(command),
                "cc -std=c11 -fPIC -shared -fvisibility=hidden -I%s/src/include %s -o %s -x c - %s",
                top ? top : ".", flags, path, strstr(flags, "-l") ? strstr(flags, "-l") : "");
        c = popen(command, "w");
        assert_non_null(c);
        fputs(source, c);
        assert_int_equal(pclose(c), 0);
        return path;
}

/* The content of a file, malloc'd. */
__attribute__((unused)) static str fixture_read(const char *path)
{
        FILE *f = fopen(path, "rb");
        char *p = NULL;
        size_t n = 0, got;

        assert_non_null(f);
        do {
                p = realloc(p, n + 65536);
                assert_non_null(p);
                got = fread(p + n, 1, 65536, f);
                n += got;
        } while (got > 0);
        fclose(f);
        return str_of(p, n);
}

#define FIXTURE_MODULE(name, hook, rest)                                                           \
        "#include <weir/module.h>\n" hook "\nWEIR_MODULE(.name = \"" name                          \
        "\", .version = \"1\"" rest ");\n"

#endif
