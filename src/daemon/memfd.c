/*
 * Sealed memory files.
 *
 * The difficulty: a mapping of a file that shrinks is a SIGBUS for its reader, so a reader first
 * looks at the seals.
 */
#include "daemon/memfd.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#define SEALS (F_SEAL_SEAL | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE)

static bool write_all(int fd, str s)
{
        while (s.n > 0) {
                ssize_t r = write(fd, s.p, s.n);
                if (r < 0 && errno == EINTR)
                        continue;
                if (r <= 0)
                        return false;
                s = str_from(s, (size_t)r);
        }
        return true;
}

int memfd_make(const char *name, const str *parts, size_t n)
{
        int saved, fd = memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING);

        if (fd < 0)
                return -1;
        for (size_t i = 0; i < n; i++) {
                if (!write_all(fd, parts[i]))
                        goto failed;
        }
        if (fcntl(fd, F_ADD_SEALS, SEALS) == 0)
                return fd;
failed:
        saved = errno;
        close(fd);
        errno = saved;
        return -1;
}

str memfd_map(int fd)
{
        struct stat st;
        void *p;
        int seals = fcntl(fd, F_GET_SEALS);

        if (seals < 0 || (seals & SEALS) != SEALS || fstat(fd, &st) != 0)
                return STR_NONE;
        if (st.st_size == 0)
                return STR("");
        p = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
        return p == MAP_FAILED ? STR_NONE : str_of(p, (size_t)st.st_size);
}

void memfd_unmap(str map)
{
        if (map.n > 0)
                munmap((void *)(uintptr_t)map.p, map.n);
}
