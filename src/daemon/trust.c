/*
 * Who can have written a module.
 *
 * The difficulty: between a look at a path and its opening somebody may put another file there.  So
 * the descriptor is judged, and read from; the folders above it only say who could have moved
 * things.
 */
#include "daemon/trust.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pwd.h>
#include <stdlib.h>
#include <unistd.h>

/* A sticky folder lets nobody replace what is another's. */
static bool open_to_anybody(const struct stat *st)
{
        return (st->st_mode & S_IWOTH) && !(S_ISDIR(st->st_mode) && (st->st_mode & S_ISVTX));
}

/* The folders above.  Their groups may write: Debian gives /usr/local/lib to one, and a checkout
 * belongs to whoever works on it. */
static bool folders_ok(const char *file, struct arena *a, str *error)
{
        char path[PATH_MAX], *end;
        struct stat st;

        if (!str_copyz(path, sizeof(path), str_z(file)))
                return true; /* too long to be opened */
        while ((end = strrchr(path, '/'))) {
                *end = 0;
                if (stat(path[0] ? path : "/", &st) == 0 && open_to_anybody(&st)) {
                        *error = arena_printf(a, "%s can be written by anybody",
                                              path[0] ? path : "/");
                        return false;
                }
        }
        return true;
}

static str name_of(uid_t uid, struct arena *a)
{
        const struct passwd *pw = getpwuid(uid);

        return pw ? arena_printf(a, "%s", pw->pw_name) : arena_printf(a, "uid %u", (unsigned)uid);
}

bool trust_file(const struct stat *st, const struct proc_user *user, struct arena *a, str *error)
{
        bool owner = st->st_uid == 0 || st->st_uid == geteuid() ||
                     (user->set && st->st_uid == user->uid);
        bool group = st->st_gid == 0 || st->st_gid == getegid() ||
                     (user->set && st->st_gid == user->gid);
        str theirs, ours;

        if (!S_ISREG(st->st_mode)) {
                *error = STR("is not a regular file");
                return false;
        }
        if (!owner) {
                theirs = name_of(st->st_uid, a);
                ours = name_of(user->set ? user->uid : geteuid(), a);
                *error = arena_printf(a,
                                      "belongs to %.*s: it must belong to root, or to the user "
                                      "weir runs as (%.*s)",
                                      STR_ARG(theirs), STR_ARG(ours));
                return false;
        }
        if (st->st_mode & S_IWOTH) {
                *error = STR("can be written by anybody");
                return false;
        }
        if ((st->st_mode & S_IWGRP) && !group) {
                *error = arena_printf(a, "can be written by group %u", (unsigned)st->st_gid);
                return false;
        }
        return true;
}

static int failed(str path, const char *why, struct arena *a, str *error)
{
        *error = arena_printf(a, "%.*s: %s", STR_ARG(path), why);
        return -1;
}

int trust_open(str path, const struct proc_user *user, struct arena *a, str *error)
{
        char real[PATH_MAX];
        const char *named = arena_dupz(a, path);
        struct stat st;
        str why;
        int fd;

        if (!realpath(named, real))
                return failed(path, strerror(errno), a, error);
        /* Without root's rights weir gives nobody more than its own, and a folder of its own may be
         * anywhere. */
        if (geteuid() == 0 && (!folders_ok(named, a, error) || !folders_ok(real, a, error)))
                return -1;
        fd = open(real, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NOCTTY | O_NONBLOCK);
        if (fd < 0)
                return failed(path, strerror(errno), a, error);
        if (fstat(fd, &st) == 0 && trust_file(&st, user, a, &why))
                return fd;
        *error = arena_printf(a, "%.*s %.*s", STR_ARG(path), STR_ARG(why));
        close(fd);
        return -1;
}
