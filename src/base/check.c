/*
 * The end of a process that found a bug in itself.
 *
 * The one difficulty: it is called from anywhere, perhaps with the heap in pieces, perhaps from
 * inside the log itself.  So it builds its text on the stack and never runs twice in a thread.
 */
#include "base/check.h"

#include "base/log.h"

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

void check_failed(const char *file, int line, const char *func, const char *text)
{
        static _Thread_local bool failing;
        char buf[512];
        int n;

        if (!failing) {
                failing = true;
                n = snprintf(buf, sizeof(buf), "panic: %s:%d: %s: %s\n", file, line, func, text);
                n = MIN(MAX(n, 0), (int)sizeof(buf) - 1);
                if (write(STDERR_FILENO, buf, (size_t)n) < 0)
                        n = 0; /* nobody is left to be told */
                if (!log_is_stderr())
                        log_write(LOG_ERROR, NULL, "panic: %s:%d: %s: %s", file, line, func, text);
        }
        abort();
}
