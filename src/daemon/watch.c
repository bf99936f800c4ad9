/*
 * Watching certificates (watch.h).
 *
 *   inotify -> a second of silence -> watch again, then compare -> something differs -> reload
 *
 * The difficulty: files are replaced in many ways (in place, by rename, by the swap of a link to a
 * folder), in several steps, and at any time, also while a reload reads them.  So folders are
 * watched, never files; every event means no more than "look again"; and what a look compares
 * with is what was read or tried last, so nothing is lost and nothing is done twice.
 */
#include "daemon/watch.h"

#include "base/check.h"
#include "base/crypto.h"
#include "base/log.h"
#include "conf/source.h"
#include "daemon/master.h"
#include "daemon/proc.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/inotify.h>
#include <sys/stat.h>
#include <unistd.h>

#define SETTLE     SEC        /* of silence after a change */
#define SETTLE_MAX (10 * SEC) /* a folder in which something changes all the time */
#define MISSING    (5 * SEC)  /* between two looks at folders that are not there */
#define LINKS_MAX  40         /* as the kernel's own limit */
#define EVENTS                                                                                     \
        (IN_CLOSE_WRITE | IN_MOVED_TO | IN_MOVED_FROM | IN_CREATE | IN_DELETE | IN_DELETE_SELF |   \
         IN_MOVE_SELF | IN_ONLYDIR)

static void settled(struct master *m, struct master_timer *t);

/* ------------------------------------------------------------------ folders */

static void folder_of(const char *path, size_t n, void (*fn)(const char *, void *), void *arg)
{
        char folder[PATH_MAX];

        while (n > 1 && path[n - 1] != '/')
                n--;
        while (n > 1 && path[n - 1] == '/')
                n--;
        memcpy(folder, path, n);
        folder[n] = 0;
        fn(folder, arg);
}

/* path[0..n) is a link: path becomes what it stands for, with the rest behind it. */
static bool follow(char *path, size_t n)
{
        char head[PATH_MAX], target[PATH_MAX], whole[2 * PATH_MAX];
        size_t folder = n;
        ssize_t len;
        int total;

        memcpy(head, path, n);
        head[n] = 0;
        len = readlink(head, target, sizeof(target) - 1);
        if (len <= 0)
                return false;
        target[len] = 0;
        while (folder > 0 && path[folder - 1] != '/')
                folder--;
        total = snprintf(whole, sizeof(whole), "%.*s%s%s", target[0] == '/' ? 0 : (int)folder, path,
                         target, path + n);
        if (total >= PATH_MAX)
                return false;
        memcpy(path, whole, (size_t)total + 1);
        return true;
}

void watch_folders(const char *path, void (*fn)(const char *folder, void *arg), void *arg)
{
        char now[PATH_MAX], head[PATH_MAX];
        unsigned links = 0;
        struct stat st;
        size_t n = 1;

        if (path[0] != '/' || strlen(path) >= sizeof(now))
                return;
        strcpy(now, path);
        while (now[n]) {
                n += strspn(now + n, "/");
                n += strcspn(now + n, "/");
                memcpy(head, now, n);
                head[n] = 0;
                if (lstat(head, &st) != 0 || !S_ISDIR(st.st_mode))
                        folder_of(now, n, fn, arg); /* the file, a link, or what may yet come */
                if (lstat(head, &st) != 0)
                        return;
                if (!S_ISLNK(st.st_mode))
                        continue;
                if (++links > LINKS_MAX || !follow(now, n))
                        return;
                n = 1;
        }
}

/* ------------------------------------------------------------------ looking */

struct adding {
        struct watch *w;
        bool missing; /* a folder is not there, or cannot be watched */
};

/* Once for each plan: it is tried again every few seconds. */
static void complain(struct watch *w, const char *what)
{
        if (!w->complained)
                log_warn("certificates", "%s cannot be watched: %s", what, strerror(errno));
        w->complained = true;
}

static void add_folder(const char *folder, void *arg)
{
        struct adding *a = arg;

        if (inotify_add_watch(a->w->fd, folder, EVENTS) >= 0)
                return;
        a->missing = true;
        if (errno != ENOENT && errno != ENOTDIR)
                complain(a->w, folder);
}

static void arm(struct master *m, int64_t in_us)
{
        master_timer_set(m, &m->watch_timer, in_us, settled);
}

static void events_readable(struct master *m, void *arg)
{
        char buf[4096] __attribute__((aligned(__alignof__(struct inotify_event))));
        struct watch *w = &m->watch;
        int64_t now = proc_now(), left;

        (void)arg;
        while (read(w->fd, buf, sizeof(buf)) > 0)
                ;
        if (w->first == 0)
                w->first = now;
        left = w->first + SETTLE_MAX - now;
        arm(m, MAX(MIN(SETTLE, left), 0));
}

static void unwatch(struct master *m)
{
        struct watch *w = &m->watch;

        if (w->fd < 0)
                return;
        master_unwatch(m, w->fd);
        close(w->fd);
        w->fd = -1;
}

/* From scratch, for links may lead elsewhere now.  Before the contents are compared: what happens
 * in between is seen by the one or the other.  false: something could not be watched. */
static bool watch_again(struct master *m)
{
        struct watch *w = &m->watch;
        struct adding a = {.w = w};

        unwatch(m);
        w->first = 0;
        w->fd = inotify_init1(IN_CLOEXEC | IN_NONBLOCK);
        if (w->fd < 0) {
                complain(w, "they");
                return false;
        }
        for (size_t i = 0; i < w->n_files; i++)
                watch_folders(w->files[i].path, add_folder, &a);
        master_watch(m, w->fd, events_readable, NULL);
        return !a.missing;
}

/* Of a file that cannot be read: no digest is like it, and it is like itself.  false: it is no
 * file with a content that stays (a pipe), and cannot be compared. */
static bool digest_of(const char *path, uint8_t out[32])
{
        int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
        bool regular = true;
        struct arena *a;
        struct stat st;
        str text, error;

        memset(out, 0xff, 32);
        if (fd < 0)
                return true;
        a = arena_new(0);
        if (fstat(fd, &st) == 0)
                regular = S_ISREG(st.st_mode);
        if (regular && source_read(fd, a, &text, &error))
                crypto_sha256(text, out);
        arena_free(a);
        close(fd);
        return regular;
}

/* What is there now becomes what is tried; true: it is not what was. */
static bool has_changed(struct watch *w)
{
        bool any = false;

        for (size_t i = 0; i < w->n_files; i++) {
                struct watch_file *f = &w->files[i];
                uint8_t sha[32];
                if (!digest_of(f->path, sha) || memcmp(sha, f->sha, sizeof(sha)) == 0)
                        continue;
                memcpy(f->sha, sha, sizeof(sha));
                log_info("certificates", "%s has changed", f->path);
                any = true;
        }
        return any;
}

static void settled(struct master *m, struct master_timer *t)
{
        struct watch *w = &m->watch;

        (void)t;
        if (m->leave || m->drain != DRAIN_NO)
                return; /* a reload would end the drain; the one that does looks again */
        if (!m->ready || m->reload.state != RELOAD_IDLE) {
                arm(m, SETTLE);
                return;
        }
        if (!watch_again(m))
                arm(m, MISSING);
        if (!has_changed(w))
                return;
        if (m->rollout.rejected) {
                log_error("certificates",
                          "not reloaded: the configuration in the files is one that was "
                          "rolled back; reload when it is better");
                return;
        }
        w->ours = true;
        reload_ask(m);
}

/* ------------------------------------------------------------------ life */

static void forget(struct master *m)
{
        struct watch *w = &m->watch;

        unwatch(m);
        master_timer_clear(&m->watch_timer);
        for (size_t i = 0; i < w->n_files; i++)
                free(w->files[i].path);
        free(w->files);
        w->files = NULL;
        w->n_files = 0;
        w->complained = false;
}

void watch_begin(struct master *m)
{
        m->watch.fd = -1;
}

void watch_adopted(struct master *m)
{
        struct watch *w = &m->watch;
        struct plan_watched one;
        uint32_t at = 0;
        size_t n = 0;

        forget(m);
        while (plan_watched_next(m->plan, &at, &one))
                n++;
        if (n == 0)
                return;
        w->files = calloc(n, sizeof(*w->files));
        CHECK(w->files);
        for (at = 0; plan_watched_next(m->plan, &at, &one);) {
                struct watch_file *f = &w->files[w->n_files++];
                f->path = strdup(one.path);
                CHECK(f->path);
                memcpy(f->sha, one.sha, sizeof(f->sha));
        }
        (void)watch_again(m);
        arm(m, SETTLE);
}

void watch_reload_done(struct master *m, bool ok)
{
        struct watch *w = &m->watch;

        if (!w->ours)
                return;
        w->ours = false;
        master_count(m, METRIC_CERTIFICATE_RELOADS, "result", ok ? STR("ok") : STR("failed"));
        if (!ok)
                log_error("certificates", "what changed does not hold, the lines above say why: "
                                          "the last good ones stay in use");
}
