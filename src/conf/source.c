/*
 * The live file system and environment as a source.
 */
#include "conf/source.h"

#include <errno.h>
#include <fcntl.h>
#include <glob.h>
#include <grp.h>
#include <pwd.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#define FILE_MAX (64 * MIB) /* of one file that a configuration names */

static bool failed(struct arena *a, str *error, const char *why)
{
        *error = arena_dup(a, str_z(why));
        return false;
}

/* Reads to the end, whatever size fstat told: /proc and pipes have none. */
bool source_read(int fd, struct arena *a, str *content, str *error)
{
        size_t cap = 4096, n = 0;
        struct stat st;

        if (fstat(fd, &st) == 0 && S_ISDIR(st.st_mode))
                return failed(a, error, strerror(EISDIR));
        if (fstat(fd, &st) == 0 && st.st_size > 0 && (size_t)st.st_size < FILE_MAX)
                cap = (size_t)st.st_size + 1;
        char *p = arena_alloc(a, cap);
        for (;;) {
                if (n == cap) {
                        if (cap >= FILE_MAX)
                                return failed(a, error, "the file is larger than 64 MiB");
                        char *q = arena_alloc(a, cap * 2);
                        memcpy(q, p, n);
                        p = q;
                        cap *= 2;
                }
                ssize_t got = read(fd, p + n, cap - n);
                if (got < 0 && errno == EINTR)
                        continue;
                if (got < 0)
                        return failed(a, error, strerror(errno));
                if (got == 0)
                        break;
                n += (size_t)got;
        }
        *content = str_of(p, n);
        return true;
}

static bool system_file(struct source *s, str path, struct arena *a, str *content, str *error)
{
        (void)s;
        if (path.n == 0 || memchr(path.p, 0, path.n))
                return failed(a, error, "not a path");
        int fd = open(arena_dupz(a, path), O_RDONLY | O_CLOEXEC | O_NOCTTY);
        if (fd < 0)
                return failed(a, error, strerror(errno));
        bool ok = source_read(fd, a, content, error);
        close(fd);
        return ok;
}

/* A folder that is not there holds nothing; one that cannot be read is a mistake. */
static int glob_failed(const char *path, int why)
{
        (void)path;
        return why != ENOENT && why != ENOTDIR;
}

static bool system_glob(struct source *s, str pattern, struct arena *a, str **paths, size_t *n)
{
        glob_t g;

        (void)s;
        if (memchr(pattern.p, 0, pattern.n))
                return false;
        int rc = glob(arena_dupz(a, pattern), 0, glob_failed, &g);
        if (rc == GLOB_NOMATCH) {
                *paths = NULL;
                *n = 0;
                return true;
        }
        if (rc != 0)
                return false;
        *paths = ARENA_ARRAY(a, str, g.gl_pathc);
        *n = g.gl_pathc;
        for (size_t i = 0; i < g.gl_pathc; i++)
                (*paths)[i] = arena_dup(a, str_z(g.gl_pathv[i]));
        globfree(&g);
        return true;
}

static bool system_env(struct source *s, str name, str *value)
{
        char z[256];

        (void)s;
        if (!str_copyz(z, sizeof z, name))
                return false;
        const char *v = getenv(z);
        if (v)
                *value = str_z(v);
        return v != NULL;
}

static bool system_user(struct source *s, str user, str group, uint32_t *uid, uint32_t *gid)
{
        char name[256], group_name[256];

        (void)s;
        if (!str_copyz(name, sizeof name, user) || !str_copyz(group_name, sizeof group_name, group))
                return false;
        const struct passwd *pw = getpwnam(name);
        if (!pw)
                return false;
        uint32_t found_uid = pw->pw_uid, found_gid = pw->pw_gid;
        if (group.n) {
                const struct group *gr = getgrnam(group_name);
                if (!gr)
                        return false;
                found_gid = gr->gr_gid;
        }
        *uid = found_uid;
        *gid = found_gid;
        return true;
}

struct source *source_system(void)
{
        static struct source s = {system_file, system_glob, system_env, system_user};

        return &s;
}
