/*
 * Test cases of a module in a text file, for `weir module test`; weir-module(3) has the format.
 *
 *   # a comment
 *   case known
 *   config { host a.test alpha; }
 *   request GET / HTTP/1.1
 *       host: a.test
 *   expect
 *       continue
 *       req x-tenant: alpha
 *
 * A section begins with its word in the first column; its lines are what follows the word and the
 * lines that are indented.
 */
#ifndef DAEMON_CASEFILE_H
#define DAEMON_CASEFILE_H

#include "conf/report.h"

#include <weir/module.h>

/* One case, and which line of the file each line of its texts was.  Lives in the parser's arena. */
struct casefile_case {
        weir_case c;
        uint32_t line; /* of `case` */
        struct casefile_text *texts;
        size_t n_texts;
};

struct casefile {
        struct casefile_case *v;
        size_t n;
};

/* text: of the file, which messages call file.  false: mistakes are in rep.  Pure. */
MUST_CHECK bool casefile_parse(str file, str text, struct arena *a, struct casefile *out,
                               struct report *rep);

/* The line of the file that a place in one of the case's texts comes from; that of `case` for any
 * other place, NULL too. */
uint32_t casefile_line(const struct casefile_case *c, const char *at);

#endif
