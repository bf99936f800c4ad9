/*
 * Settings of scopes laid over each other.
 *
 * The rows of the table say where a setting's value lies, so that nothing here knows one by name
 * but the two that are not single words.
 */
#include "conf/settings.h"

#include "base/check.h"
#include "conf/compile.h"

static void take(struct settings *out, const struct settings *from, const struct value_row *row)
{
        uint64_t bit = UINT64_C(1) << row->bit;

        if ((out->set & bit) || !(from->set & bit))
                return;
        memcpy((char *)out + row->offset, (const char *)from + row->offset, row->size);
        out->set |= bit;
}

static void overlay(struct settings *out, const struct settings *from)
{
        uint64_t log = UINT64_C(1) << SET_ACCESS_LOG, pages = UINT64_C(1) << SET_ERROR_PAGES;

        for (size_t i = 0; i < directive_keys_n; i++) {
                if (directive_keys[i].value.bit >= 0)
                        take(out, from, &directive_keys[i].value);
        }
        for (size_t i = 0; i < directives_n; i++) {
                if (directives[i].value.bit >= 0)
                        take(out, from, &directives[i].value);
        }
        if (!(out->set & log) && (from->set & log))
                out->access_log = from->access_log;
        if (!(out->set & pages) && (from->set & pages)) {
                out->error_pages = from->error_pages;
                out->n_error_pages = from->n_error_pages;
        }
        out->set |= from->set & (log | pages);
}

void settings_defaults(struct settings *out)
{
        struct compile c = {0};
        struct settings d = {0};

        for (size_t i = 0; i < directive_keys_n + directives_n; i++) {
                const struct value_row *row = i < directive_keys_n
                                                      ? &directive_keys[i].value
                                                      : &directives[i - directive_keys_n].value;
                struct word w = {.text = str_z(row->dflt)};
                if (row->bit >= 0)
                        CHECK(compile_word(&c, row, "", &w, &d));
        }
        d.set = (UINT64_C(1) << SETTINGS) - 1;
        *out = d;
}

/* Pages are laid over each other one by one, the nearest scope first. */
static void merge_pages(struct arena *a, struct settings *out, const struct settings *const *scopes,
                        size_t n)
{
        VEC(struct error_page) pages = {0};
        size_t used = 0;

        for (size_t i = 0; i < n; i++)
                used += scopes[i] && scopes[i]->n_error_pages > 0;
        if (used < 2)
                return;
        for (size_t i = 0; i < n; i++) {
                for (size_t k = 0; scopes[i] && k < scopes[i]->n_error_pages; k++) {
                        struct error_page page = scopes[i]->error_pages[k];
                        size_t old = 0;
                        while (old < pages.n && pages.v[old].status != page.status)
                                old++;
                        if (old == pages.n)
                                *VEC_ADD(a, &pages) = page;
                }
        }
        out->error_pages = pages.v;
        out->n_error_pages = pages.n;
}

void settings_merge(struct arena *a, struct settings *out, const struct settings *route,
                    const struct settings *upstream, const struct settings *host,
                    const struct settings *top)
{
        const struct settings *scopes[] = {route, upstream, host, top};
        struct settings merged = {0};
        const uint64_t all = (UINT64_C(1) << SETTINGS) - 1;

        for (size_t i = 0; i < COUNT(scopes); i++) {
                if (scopes[i])
                        overlay(&merged, scopes[i]);
        }
        if (merged.set != all) {
                struct settings defaults;
                settings_defaults(&defaults);
                overlay(&merged, &defaults);
        }
        CHECK(merged.set == all);
        merge_pages(a, &merged, scopes, COUNT(scopes));
        *out = merged;
}
