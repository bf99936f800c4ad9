/*
 * Log files.
 */
#include "daemon/logs.h"

#include "base/check.h"
#include "base/log.h"
#include "daemon/wire.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

void logs_init(struct logs *l)
{
        *l = (struct logs){.error_level = LOG_INFO, .next_error_fd = -1, .kept_fd = -1};
        strcpy(l->error_path, "stderr");
        list_init(&l->all);
}

/* "stdout" and "stderr" are what the master was started with. */
static int open_log(const char *path, char *err, size_t cap)
{
        int fd;

        if (strcmp(path, "stdout") == 0 || strcmp(path, "stderr") == 0)
                fd = fcntl(path[3] == 'o' ? STDOUT_FILENO : STDERR_FILENO, F_DUPFD_CLOEXEC, 3);
        else
                fd = open(path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC | O_NOCTTY, 0640);
        if (fd < 0)
                snprintf(err, cap, "%s: %s", path, strerror(errno));
        return fd;
}

static void file_free(struct log_file *f)
{
        close(f->fd);
        list_remove(&f->link);
        free(f);
}

static bool want(struct logs *l, const char *path, char *err, size_t cap)
{
        struct log_file *f;
        int fd;

        LIST_EACH (n, &l->all) {
                f = CONTAINER_OF(n, struct log_file, link);
                if (strcmp(f->path, path) == 0) {
                        f->leaving = false;
                        return true;
                }
        }
        fd = open_log(path, err, cap);
        if (fd < 0)
                return false;
        f = calloc(1, sizeof(*f));
        CHECK(f);
        memcpy(f->path, path, strlen(path) + 1);
        f->fd = fd;
        f->fresh = true;
        list_push(&l->all, &f->link);
        return true;
}

bool logs_prepare(struct logs *l, const struct plan *p, char *err, size_t cap)
{
        bool ok = true;

        LIST_EACH (n, &l->all) {
                struct log_file *f = CONTAINER_OF(n, struct log_file, link);
                f->fresh = false;
                f->leaving = true;
        }
        for (uint32_t i = 0; ok && i < p->head->n_logs; i++)
                ok = want(l, p->logs[i].path, err, cap);
        if (ok && p->head->error_log[0] && strcmp(p->head->error_log, l->error_path) != 0) {
                l->next_error_fd = open_log(p->head->error_log, err, cap);
                ok = l->next_error_fd >= 0;
        }
        if (!ok)
                logs_abort(l);
        return ok;
}

static void use_error_fd(struct logs *l, int fd)
{
        if (l->kept_fd < 0)
                l->kept_fd = fd;
        log_to_fd(fd, (enum log_level)l->error_level);
}

void logs_commit(struct logs *l, const struct plan *p)
{
        LIST_EACH (n, &l->all) {
                struct log_file *f = CONTAINER_OF(n, struct log_file, link);
                f->fresh = false;
                if (f->leaving)
                        file_free(f);
        }
        l->error_level = p->head->log_level;
        log_level = (enum log_level)l->error_level;
        if (l->next_error_fd < 0)
                return;
        use_error_fd(l, l->next_error_fd);
        l->next_error_fd = -1;
        memcpy(l->error_path, p->head->error_log, sizeof(l->error_path));
}

void logs_abort(struct logs *l)
{
        LIST_EACH (n, &l->all) {
                struct log_file *f = CONTAINER_OF(n, struct log_file, link);
                f->leaving = false;
                if (f->fresh)
                        file_free(f);
        }
        if (l->next_error_fd >= 0)
                close(l->next_error_fd);
        l->next_error_fd = -1;
}

bool logs_reopen(struct logs *l, char *err, size_t cap)
{
        bool ok = true;

        LIST_EACH (n, &l->all) {
                struct log_file *f = CONTAINER_OF(n, struct log_file, link);
                int fd = open_log(f->path, err, cap);
                ok = ok && fd >= 0;
                if (fd < 0)
                        continue;
                close(f->fd);
                f->fd = fd;
        }
        if (strcmp(l->error_path, "stderr") != 0) {
                int fd = open_log(l->error_path, err, cap);
                ok = ok && fd >= 0;
                if (fd >= 0)
                        use_error_fd(l, fd);
        }
        return ok;
}

bool logs_send(const struct logs *l, int channel, bool fresh_only)
{
        LIST_EACH (n, &l->all) {
                struct log_file *f = CONTAINER_OF(n, struct log_file, link);
                if ((!fresh_only || f->fresh) &&
                    !wire_send_fds(channel, WIRE_LOG, 0, f->path, strlen(f->path), &f->fd, 1))
                        return false;
        }
        return true;
}

bool logs_send_error(const struct logs *l, int channel)
{
        uint32_t level = (uint32_t)l->error_level;
        int fd = l->kept_fd < 0 ? STDERR_FILENO : l->kept_fd;

        return wire_send_fds(channel, WIRE_ERROR_LOG, 0, &level, sizeof(level), &fd, 1);
}
