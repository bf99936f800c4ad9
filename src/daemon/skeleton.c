/*
 * A module to start from is contrib/module-template under another name.
 *
 * The folder itself builds, as `example`; its files are made into strings when weir is built, so
 * that the command needs nothing but itself.
 */
#include "daemon/skeleton.h"

#include "base/buf.h"
#include "module/module.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#define PLACEHOLDER STR("example")

static const struct {
        const char *name, *text;
} files[] = {
#include "daemon/skeleton.inc"
};

static bool name_ok(const char *name)
{
        size_t n = strlen(name);

        return n <= MODULE_NAME_MAX && name[0] >= 'a' && name[0] <= 'z' &&
               strspn(name, "abcdefghijklmnopqrstuvwxyz0123456789_") == n;
}

/* text with the module's name in place of the template's. */
static void rename_in(struct buf *out, str text, str name)
{
        ptrdiff_t at;

        while ((at = str_find(text, PLACEHOLDER)) >= 0) {
                buf_put(out, text.p, (size_t)at);
                buf_puts(out, name);
                text = str_from(text, (size_t)at + PLACEHOLDER.n);
        }
        buf_puts(out, text);
}

static bool write_file(int folder, const char *file, str text)
{
        int fd = openat(folder, file, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0666);
        bool ok = fd >= 0;
        int saved;

        while (ok && text.n > 0) {
                ssize_t n = write(fd, text.p, text.n);
                if (n < 0 && errno == EINTR)
                        continue;
                ok = n > 0;
                text = ok ? str_from(text, (size_t)n) : text;
        }
        saved = errno;
        if (fd >= 0 && close(fd) != 0 && ok)
                return false;
        errno = saved;
        return ok;
}

static bool write_one(int folder, size_t i, str name, bool undo)
{
        struct buf file = BUF_INIT, text = BUF_INIT;
        bool ok = true;

        rename_in(&file, str_z(files[i].name), name);
        buf_put(&file, "", 1);
        if (undo) {
                (void)unlinkat(folder, buf_pullup(&file, file.n).p, 0);
        } else {
                rename_in(&text, str_z(files[i].text), name);
                ok = write_file(folder, buf_pullup(&file, file.n).p, buf_pullup(&text, text.n));
        }
        buf_clear(&file);
        buf_clear(&text);
        return ok;
}

/* false: errno, and what was written is gone again. */
static bool write_all(const char *path, str name)
{
        int folder = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC), saved;
        size_t n = 0;

        while (folder >= 0 && n < COUNT(files) && write_one(folder, n, name, false))
                n++;
        saved = errno;
        for (size_t i = 0; folder >= 0 && n < COUNT(files) && i <= n; i++)
                (void)write_one(folder, i, name, true);
        if (folder >= 0)
                close(folder);
        if (n < COUNT(files))
                (void)rmdir(path);
        errno = saved;
        return n == COUNT(files);
}

static int failed(const char *path)
{
        fprintf(stderr, "weir: %s: %s\n", path,
                errno == EEXIST ? "is there already: it is left as it is" : strerror(errno));
        return 1;
}

int skeleton_new(const char *name, const char *folder)
{
        char path[PATH_MAX];
        bool here = strcmp(folder, ".") == 0;
        int n;

        if (!name_ok(name)) {
                fprintf(stderr,
                        "weir: module new: \"%s\": a module's name is made of a-z, 0-9 and _, "
                        "begins with a letter and has at most %d characters\n",
                        name, MODULE_NAME_MAX);
                return 1;
        }
        n = snprintf(path, sizeof(path), "%s%s%s", here ? "" : folder, here ? "" : "/", name);
        if (n < 0 || (size_t)n >= sizeof(path)) {
                errno = ENAMETOOLONG;
                return failed(folder);
        }
        if (mkdir(path, 0777) != 0 || !write_all(path, str_z(name)))
                return failed(path);
        printf("%s/: %s.c, %s.cases, Makefile and README.md\n"
               "cd %s && make && make test\n",
               path, name, name, path);
        return 0;
}
