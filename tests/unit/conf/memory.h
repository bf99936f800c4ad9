/*
 * Files, environment and users that exist only in a test, as a source.
 */
#ifndef UNIT_CONF_MEMORY_H
#define UNIT_CONF_MEMORY_H

#include "conf/source.h"

#include <fnmatch.h>

struct memory_entry {
        const char *name, *text;
};

/* Both lists end in a NULL name. */
struct memory {
        struct source source; /* first: the functions get it back as the memory */
        const struct memory_entry *files, *env;
};

static const struct memory_entry *memory_find(const struct memory_entry *e, str name)
{
        for (; e && e->name; e++) {
                if (str_eq(name, str_z(e->name)))
                        return e;
        }
        return NULL;
}

static bool memory_file(struct source *s, str path, struct arena *a, str *content, str *error)
{
        const struct memory_entry *e = memory_find(((struct memory *)s)->files, path);

        if (!e) {
                *error = STR("No such file or directory");
                return false;
        }
        *content = arena_dup(a, str_z(e->text));
        return true;
}

static bool memory_glob(struct source *s, str pattern, struct arena *a, str **paths, size_t *n)
{
        VEC(str) found = {0};
        const char *z = arena_dupz(a, pattern);

        for (const struct memory_entry *e = ((struct memory *)s)->files; e && e->name; e++) {
                if (fnmatch(z, e->name, FNM_PATHNAME) == 0)
                        *VEC_ADD(a, &found) = str_z(e->name);
        }
        *paths = found.v;
        *n = found.n;
        return true;
}

static bool memory_env(struct source *s, str name, str *value)
{
        const struct memory_entry *e = memory_find(((struct memory *)s)->env, name);

        if (e)
                *value = str_z(e->text);
        return e != NULL;
}

static bool memory_user(struct source *s, str user, str group, uint32_t *uid, uint32_t *gid)
{
        (void)s;
        if (!str_eq(user, STR("weir")) || (group.n && !str_eq(group, STR("www"))))
                return false;
        *uid = 123;
        *gid = group.n ? 33 : 124;
        return true;
}

#define MEMORY(files_, env_)                                                                       \
        ((struct memory){{memory_file, memory_glob, memory_env, memory_user}, (files_), (env_)})

#endif
