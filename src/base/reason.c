/* The list of reasons as a table. */
#include "base/reason.h"

const struct reason_row reason_rows[REASONS] = {
#define REASON(id, word, status, text) [REASON_##id] = {word, status, text},
#include "base/reason.tbl"
#undef REASON
};
