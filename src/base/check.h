/*
 * Bugs stop the process; input never does.
 *
 * CHECK stays on in production.  Objects that cross a callback as void * begin with a magic, and
 * become a type again only through CAST, so that a stale or foreign pointer is caught at the door.
 */
#ifndef BASE_CHECK_H
#define BASE_CHECK_H

#include "base/defs.h"

/* Logs "panic: FILE:LINE: FUNC: TEXT" to standard error and the error log, then abort()s. */
NORETURN COLD void check_failed(const char *file, int line, const char *func, const char *text);

#define CHECK(cond)                                                                                \
        do {                                                                                       \
                if (UNLIKELY(!(cond)))                                                             \
                        check_failed(__FILE__, __LINE__, __func__, #cond);                         \
        } while (0)

#define UNREACHABLE() check_failed(__FILE__, __LINE__, __func__, "unreachable")

/* struct foo { uint32_t magic; ... } with #define FOO_MAGIC 0x... ; freed objects get DEAD_MAGIC.
 */
#define DEAD_MAGIC      UINT32_C(0xdeadbeef)
#define CHECK_OBJ(p, m) CHECK((p) != NULL && (p)->magic == (m))

static inline void *check_cast_(void *p, uint32_t magic, const char *file, int line,
                                const char *func, const char *type)
{
        if (UNLIKELY(p == NULL || *(const uint32_t *)p != magic))
                check_failed(file, line, func, type);
        return p;
}
/* struct foo *f = CAST(struct foo, FOO_MAGIC, arg); the magic must be the first field. */
#define CAST(type, m, p)                                                                           \
        ((type *)check_cast_((p), (m), __FILE__, __LINE__, __func__, "not a " #type))

#endif
