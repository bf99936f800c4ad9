/*
 * Opens modules, shares what is the same, and makes sure that what was closed is gone.
 *
 * The difficulty is glibc: it knows objects by name and inode, so a copy's name must never come
 * twice (the caller sees to that), and dlclose returns 0 also when it unmapped nothing, so the load
 * address is looked up afterwards.
 */
#include "module/module.h"

#include "base/check.h"
#include "base/crumb.h"
#include "base/crypto.h"
#include "base/log.h"
#include "module/desc.h"
#include "module/elf.h"

#include <dlfcn.h>
#include <link.h>
#include <stdlib.h>
#include <string.h>

#define ENTRY "weir_module_entry"

static struct module *modules; /* all that are mapped, the newest first */
static uint32_t serial;
static unsigned leaked;

const char *module_phase_name(unsigned phase)
{
        static const char *const names[MODULE_PHASES] = {
                "nothing",     "load",         "create",          "loop_init",        "on_request",
                "on_response", "a completion", "background work", "on_log",           "loop_fini",
                "destroy",     "a drop",       "on_request_body", "on_response_body",
        };
        return phase < MODULE_PHASES ? names[phase] : "nothing";
}

struct module *module_hold(struct module *m)
{
        CHECK_OBJ(m, MODULE_MAGIC);
        m->refs++;
        return m;
}

static struct module *find_same(const struct module_file *f, const uint8_t sha[32])
{
        for (struct module *m = modules; m != NULL; m = m->next)
                if (memcmp(m->sha, sha, sizeof(m->sha)) == 0 && str_eq(m->name, f->name))
                        return m;
        return NULL;
}

static bool open_object(struct module *m, const char *path, struct arena *a, str *error)
{
        struct link_map *map;

        m->handle = dlopen(path, RTLD_NOW | RTLD_LOCAL);
        if (m->handle == NULL) {
                *error = arena_printf(a, "cannot be opened: %s", dlerror());
                return false;
        }
        CHECK(dlinfo(m->handle, RTLD_DI_LINKMAP, &map) == 0);
        m->load_addr = map->l_addr;
        return true;
}

static bool call_entry(struct module *m, const weir_host *host, struct arena *a, str *error)
{
        weir_entry_fn *entry;
        const weir_module *theirs;

        *(void **)&entry = dlsym(m->handle, ENTRY);
        if (entry == NULL) {
                *error = arena_printf(
                        a, "does not export %s: it is not a module of weir (use WEIR_MODULE)",
                        ENTRY);
                return false;
        }
        theirs = entry(host);
        m->desc = desc_adopt(theirs, m->name, host, m->arena, error);
        if (m->desc == NULL) {
                *error = arena_dup(a, *error);
                return false;
        }
        if (m->name.p == NULL)
                m->name = arena_dup(m->arena, str_z(m->desc->name));
        if ((m->desc->flags & WEIR_PINNED) && m->pinned == NULL)
                m->pinned = "it says so itself";
        return true;
}

static int find_address(struct dl_phdr_info *info, size_t size, void *arg)
{
        (void)size;
        return info->dlpi_addr == *(uintptr_t *)arg;
}

/* Unmaps m and frees it; a pinned one, or one that turns out to be stuck, stays for as long as the
 * process. */
static void close_object(struct module *m)
{
        if (m->handle != NULL) {
                CHECK(dlclose(m->handle) == 0);
                if (dl_iterate_phdr(find_address, &m->load_addr)) {
                        leaked++;
                        log_warn("modules",
                                 "%.*s: version %s cannot be unloaded, its code stays in memory "
                                 "(%u such by now)",
                                 STR_ARG(m->origin), m->id, leaked);
                }
        }
        arena_free(m->arena);
        m->magic = DEAD_MAGIC;
        free(m);
}

static struct module *module_make(const struct module_file *f, const uint8_t sha[32])
{
        struct arena *arena = arena_new(0);
        struct module *m = calloc(1, sizeof(*m));

        CHECK(m != NULL);
        *m = (struct module){.magic = MODULE_MAGIC, .refs = 1, .arena = arena, .copy = ++serial};
        m->name = arena_dup(arena, f->name);
        m->origin = arena_dup(arena, f->origin);
        memcpy(m->sha, sha, sizeof(m->sha));
        crypto_hex(m->id, sha, 6);
        m->id[12] = '\0';
        return m;
}

static bool bring_up(struct module *m, const struct module_file *f, const weir_host *host,
                     struct arena *a, str *error)
{
        struct elf_facts facts;
        struct elf_error err;
        bool ok;

        if (!elf_lint(f->bytes, &facts, &err)) {
                *error = arena_printf(a, "%s", err.text);
                return false;
        }
        m->pinned = facts.pinned;
        memcpy(m->build_id, facts.build_id, sizeof(m->build_id));
        crumb_enter(m->copy, 0, MODULE_LOAD, NULL, NULL);
        ok = open_object(m, f->path, a, error) && call_entry(m, host, a, error);
        crumb_leave();
        return ok;
}

struct module *module_open(const struct module_file *f, const weir_host *host, struct arena *a,
                           str *error)
{
        uint8_t sha[32];
        struct module *m;
        str why = STR_NONE;

        crypto_sha256(f->bytes, sha);
        m = find_same(f, sha);
        if (m != NULL)
                return module_hold(m);
        m = module_make(f, sha);
        if (!bring_up(m, f, host, a, &why)) {
                close_object(m);
                *error = arena_printf(a, "%s%.*s%s%.*s %.*s", f->name.p ? "module " : "",
                                      STR_ARG(f->name), f->name.p ? ": " : "", STR_ARG(f->origin),
                                      STR_ARG(why));
                return NULL;
        }
        if (m->pinned)
                log_info("modules", "%.*s: version %s will stay in memory when it is replaced: %s",
                         STR_ARG(m->origin), m->id, m->pinned);
        m->next = modules;
        modules = m;
        return m;
}

void module_drop(struct module *m)
{
        struct module **at = &modules;

        CHECK_OBJ(m, MODULE_MAGIC);
        CHECK(m->refs > 0);
        if (--m->refs > 0 || m->pinned)
                return;
        while (*at != m)
                at = &(*at)->next;
        *at = m->next;
        close_object(m);
}

const struct module *module_by_copy(uint32_t copy)
{
        for (const struct module *m = modules; m != NULL; m = m->next)
                if (m->copy == copy)
                        return m;
        return NULL;
}

size_t module_list(const struct module **out, size_t max)
{
        size_t n = 0;

        for (const struct module *m = modules; m != NULL; m = m->next, n++)
                if (n < max)
                        out[n] = m;
        return n;
}

void module_put_place(struct buf *b, const void *address)
{
        Dl_info at;
        const char *file;

        if (dladdr(address, &at) == 0 || at.dli_fname == NULL) {
                buf_printf(b, "%p", address);
                return;
        }
        file = strrchr(at.dli_fname, '/') ? strrchr(at.dli_fname, '/') + 1 : at.dli_fname;
        if (at.dli_sname != NULL)
                buf_printf(b, "%s+0x%tx (%s)", at.dli_sname,
                           (const char *)address - (const char *)at.dli_saddr, file);
        else
                buf_printf(b, "%s+0x%tx", file, (const char *)address - (const char *)at.dli_fbase);
}

unsigned module_leaked(void)
{
        return leaked;
}
