/*
 * Why a connection was closed or a response made by weir itself: one list, so that log, metric and
 * message use the same word.  A row is REASON(id, "word", status, "sentence"); status is what a
 * client gets when there is still somebody to answer (0: nothing is sent).
 */
#ifndef BASE_REASON_H
#define BASE_REASON_H

#include "base/str.h"

enum reason {
#define REASON(id, word, status, text) REASON_##id,
#include "base/reason.tbl"
#undef REASON
        REASONS
};

struct reason_row {
        const char *word;
        int status;
        const char *text;
};
extern const struct reason_row reason_rows[REASONS];

static inline const char *reason_word(enum reason r)
{
        return reason_rows[r].word;
}

#endif
