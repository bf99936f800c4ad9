/*
 * Private copies of modules.
 *
 * The difficulty: dlopen knows objects by name and inode, so a name is never used twice while this
 * master lives, and masters beside each other (an upgrade, a second weir) must not remove each
 * other's: each name ends in its master's pid and a serial.
 */
#include "daemon/copies.h"

#include "base/check.h"
#include "base/crypto.h"
#include "base/log.h"
#include "daemon/memfd.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

static bool make_folders(const char *path)
{
        char part[PATH_MAX];

        for (size_t n = 1; path[n - 1]; n++) {
                if (path[n] != '/' && path[n] != 0)
                        continue;
                if (!str_copyz(part, sizeof(part), str_of(path, n)))
                        return false;
                if (mkdir(part, 0700) == 0) {
                        if (chmod(part, path[n] ? 0755 : 0711) != 0) /* whatever the umask */
                                return false;
                } else if (errno != EEXIST) {
                        return false;
                }
        }
        return true;
}

/* NAME.SHA.PID-SERIAL.so of a master that is gone. */
static bool is_stale(const char *file)
{
        str s = str_z(file), pid_text, serial;
        ptrdiff_t dot;
        uint64_t pid;

        if (!str_ends(s, STR(".so")))
                return false;
        s.n -= 3;
        dot = str_rchr(s, '.');
        if (dot < 0)
                return false;
        s = str_from(s, (size_t)dot + 1);
        if (!str_cut(s, '-', &pid_text, &serial) || !str_u64(pid_text, INT32_MAX, &pid) || pid == 0)
                return false;
        return kill((pid_t)pid, 0) != 0 && errno == ESRCH;
}

static void remove_stale(void)
{
        DIR *d = opendir(COPIES_DIR);
        struct dirent *e;

        while (d && (e = readdir(d)) != NULL) {
                if (is_stale(e->d_name))
                        (void)unlinkat(dirfd(d), e->d_name, 0);
        }
        if (d)
                closedir(d);
}

void copies_open(struct copies *c, bool has_gid, uint32_t gid)
{
        struct statvfs fs;
        struct stat st;

        list_init(&c->all);
        c->serial = 0;
        c->has_gid = has_gid;
        c->gid = gid;
        c->usable = geteuid() == 0 && make_folders(COPIES_DIR) && stat(COPIES_DIR, &st) == 0 &&
                    S_ISDIR(st.st_mode) && st.st_uid == 0 && (st.st_mode & 022) == 0 &&
                    statvfs(COPIES_DIR, &fs) == 0 && (fs.f_flag & (ST_NOEXEC | ST_RDONLY)) == 0;
        if (c->usable)
                remove_stale();
}

static bool write_copy(const char *path, str bytes, const struct copies *c)
{
        int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0400);
        bool ok = fd >= 0;

        while (ok && bytes.n > 0) {
                ssize_t r = write(fd, bytes.p, bytes.n);
                if (r < 0 && errno == EINTR)
                        continue;
                ok = r > 0;
                bytes = ok ? str_from(bytes, (size_t)r) : bytes;
        }
        ok = ok && (!c->has_gid || fchown(fd, 0, c->gid) == 0) && fchmod(fd, 0440) == 0;
        if (fd >= 0) {
                int saved = errno;
                close(fd);
                if (!ok)
                        unlink(path);
                errno = saved;
        }
        return ok;
}

struct copy *copies_make(struct copies *c, const char *name, const uint8_t sha[32], str bytes)
{
        struct copy *copy;
        char id[12];

        LIST_EACH (n, &c->all) {
                copy = CONTAINER_OF(n, struct copy, link);
                if (memcmp(copy->sha, sha, sizeof(copy->sha)) == 0)
                        return copy;
        }
        if (!c->usable)
                return NULL;
        copy = calloc(1, sizeof(*copy));
        CHECK(copy);
        memcpy(copy->sha, sha, sizeof(copy->sha));
        crypto_hex(id, sha, sizeof(id) / 2);
        snprintf(copy->path, sizeof(copy->path), COPIES_DIR "/%s.%.*s.%d-%llu.so", name,
                 (int)sizeof(id), id, (int)getpid(), (unsigned long long)++c->serial);
        if (!write_copy(copy->path, bytes, c)) {
                log_warn(name, "the module's copy %s cannot be written (%s): it is kept in memory",
                         copy->path, strerror(errno));
                free(copy);
                return NULL;
        }
        list_push(&c->all, &copy->link);
        return copy;
}

static void copy_free(struct copy *copy)
{
        list_remove(&copy->link);
        (void)unlink(copy->path);
        free(copy);
}

void copies_sweep(struct copies *c, bool (*used)(void *ctx, const uint8_t sha[32]), void *ctx)
{
        LIST_EACH (n, &c->all) {
                struct copy *copy = CONTAINER_OF(n, struct copy, link);
                if (!copy->wanted && !used(ctx, copy->sha))
                        copy_free(copy);
        }
}

void copies_close(struct copies *c)
{
        LIST_EACH (n, &c->all)
                copy_free(CONTAINER_OF(n, struct copy, link));
}

/* ------------------------------------------------------------------ in memory */

struct memory_copy {
        struct list link;
        int fd;
        uint8_t sha[32];
};

void memory_copies_init(struct memory_copies *m)
{
        list_init(&m->all);
}

const char *memory_copies_make(struct memory_copies *m, str bytes, struct arena *a, str *error)
{
        struct memory_copy *copy = calloc(1, sizeof(*copy));

        CHECK(copy);
        copy->fd = memfd_make("weir-module", &bytes, 1);
        if (copy->fd < 0) {
                *error = arena_printf(a, "memfd: %s", strerror(errno));
                free(copy);
                return NULL;
        }
        crypto_sha256(bytes, copy->sha);
        list_push(&m->all, &copy->link);
        return arena_printf(a, "/proc/self/fd/%d", copy->fd).p;
}

void memory_copies_sweep(struct memory_copies *m)
{
        const struct module *open[256];
        size_t n = module_list(open, COUNT(open));

        if (module_leaked() > 0 || n > COUNT(open))
                return;
        LIST_EACH (l, &m->all) {
                struct memory_copy *copy = CONTAINER_OF(l, struct memory_copy, link);
                bool used = false;
                for (size_t i = 0; i < n; i++)
                        used = used || memcmp(open[i]->sha, copy->sha, sizeof(copy->sha)) == 0;
                if (used)
                        continue;
                list_remove(&copy->link);
                close(copy->fd);
                free(copy);
        }
}
