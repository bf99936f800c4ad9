/*
 * Reads program headers, the dynamic section and the dynamic symbols: what the dynamic linker will
 * go by.
 *
 * The difficulty: nothing in the file can be trusted, so each number is checked against the bytes
 * before it is used, and structs are copied out, never pointed at.  Section headers are not looked
 * at: they may be absent, and the linker ignores them.
 */
#include "module/elf.h"

#include "base/crypto.h"

#include <elf.h>
#include <stdarg.h>
#include <stdio.h>

#if defined(__x86_64__)
#define HOST_MACHINE EM_X86_64
#elif defined(__aarch64__)
#define HOST_MACHINE EM_AARCH64
#elif defined(__riscv)
#define HOST_MACHINE EM_RISCV
#elif defined(__powerpc64__)
#define HOST_MACHINE EM_PPC64
#else
#error "modules: which ELF machine is this?"
#endif

#define PHDRS_MAX   64
#define NEEDED_MAX  32
#define SYMBOLS_MAX (1u << 20)

/* One file under examination.  Invariant: load[] lies within bytes. */
struct elf {
        str bytes;
        struct elf_error *err;
        Elf64_Phdr load[PHDRS_MAX];
        unsigned n_load;
        Elf64_Phdr dynamic;
        bool has_dynamic, has_stack;
        uint64_t tls;
        uint64_t strtab, strsz, symtab, gnu_hash, hash, flags, flags_1;
        uint64_t needed[NEEDED_MAX]; /* offsets in strtab */
        unsigned n_needed;
        bool textrel;
        struct elf_facts facts;
};

/* Whole names, or with a final '*' what they begin with. */
static const char *const allowed_libraries[] = {
        "libc.so.6",      "libm.so.6",          "libgcc_s.so.1",     "libpthread.so.0",
        "libdl.so.2",     "librt.so.1",         "ld-linux*",         "libpcre2-8.so.0",
        "libz.so.1",      "libbrotlienc.so.1",  "libbrotlidec.so.1", "libbrotlicommon.so.1",
        "libzstd.so.1",   "libluajit-5.1.so.2", "libjwt.so.*",       "libssl.so.3",
        "libcrypto.so.3", "libcrypt.so.1",      "libstdc++.so.6",    "libasan.so.*",
        "libubsan.so.*",  "libtsan.so.*",       "liblsan.so.*",      "libclang_rt.*",
};

static const struct {
        const char *name, *why;
} forbidden_symbols[] = {
        {"dlopen", "it would bring in objects that nobody has checked"},
        {"dlmopen", "it would bring in objects that nobody has checked"},
        {"on_exit", "its handler would be called after the module has gone"},
        {"at_quick_exit", "its handler would be called after the module has gone"},
        {"signal", "signals belong to weir"},
        {"sigaction", "signals belong to weir"},
        {"bsd_signal", "signals belong to weir"},
        {"sigset", "signals belong to weir"},
        {"fork", "a worker must not be doubled"},
        {"vfork", "a worker must not be doubled"},
        {"system", "a worker must not be doubled, and it blocks"},
        {"popen", "a worker must not be doubled, and it blocks"},
        {"pthread_atfork", "its handlers would be called after the module has gone"},
        {"__register_atfork", "its handlers would be called after the module has gone"},
        {"pthread_key_create", "its destructor would be called after the module has gone"},
        {"tss_create", "its destructor would be called after the module has gone"},
        {"__cxa_thread_atexit", "a thread_local destructor keeps the module from being unloaded"},
        {"__cxa_thread_atexit_impl",
         "a thread_local destructor keeps the module from being unloaded"},
};

static PRINTF_LIKE(2, 3) bool refuse(struct elf *e, const char *fmt, ...)
{
        va_list ap;

        va_start(ap, fmt);
        vsnprintf(e->err->text, sizeof(e->err->text), fmt, ap);
        va_end(ap);
        return false;
}

static bool copy_out(const struct elf *e, uint64_t off, void *out, size_t n)
{
        if (off > e->bytes.n || n > e->bytes.n - off)
                return false;
        memcpy(out, e->bytes.p + off, n);
        return true;
}

/* Where in the file n bytes at vaddr are; false when they are not all in one segment's file part.
 */
static bool file_offset(const struct elf *e, uint64_t vaddr, uint64_t n, uint64_t *off)
{
        for (unsigned i = 0; i < e->n_load; i++) {
                const Elf64_Phdr *p = &e->load[i];
                if (vaddr >= p->p_vaddr && vaddr - p->p_vaddr <= p->p_filesz &&
                    n <= p->p_filesz - (vaddr - p->p_vaddr)) {
                        *off = p->p_offset + (vaddr - p->p_vaddr);
                        return true;
                }
        }
        return false;
}

static bool copy_mapped(const struct elf *e, uint64_t vaddr, void *out, size_t n)
{
        uint64_t off;
        return file_offset(e, vaddr, n, &off) && copy_out(e, off, out, n);
}

/* The string at index i of the string table; absent when it does not end inside. */
static str string_at(const struct elf *e, uint64_t i)
{
        uint64_t off;
        const char *p, *end;

        if (i >= e->strsz || !file_offset(e, e->strtab, e->strsz, &off))
                return STR_NONE;
        p = e->bytes.p + off + i;
        end = memchr(p, 0, e->strsz - i);
        return end ? str_of(p, (size_t)(end - p)) : STR_NONE;
}

static bool check_header(struct elf *e, Elf64_Ehdr *h)
{
        if (!copy_out(e, 0, h, sizeof(*h)) || memcmp(h->e_ident, ELFMAG, SELFMAG) != 0)
                return refuse(e, "is not an ELF file");
        if (h->e_ident[EI_CLASS] != ELFCLASS64 || h->e_ident[EI_DATA] != ELFDATA2LSB ||
            h->e_machine != HOST_MACHINE)
                return refuse(e, "was built for another machine");
        if (h->e_type != ET_DYN)
                return refuse(e, "is not a shared object");
        if (h->e_phentsize != sizeof(Elf64_Phdr) || h->e_phnum == 0 || h->e_phnum > PHDRS_MAX)
                return refuse(e, "has malformed program headers");
        return true;
}

static bool check_segment(struct elf *e, const Elf64_Phdr *p)
{
        switch (p->p_type) {
        case PT_LOAD:
                if (p->p_filesz > p->p_memsz || p->p_offset > e->bytes.n ||
                    p->p_filesz > e->bytes.n - p->p_offset || p->p_vaddr > UINT64_MAX - p->p_memsz)
                        return refuse(e, "is cut short: a segment lies outside of the file");
                if ((p->p_flags & (PF_W | PF_X)) == (PF_W | PF_X))
                        return refuse(e, "has a segment that is both writable and executable");
                e->load[e->n_load++] = *p;
                break;
        case PT_GNU_STACK:
                e->has_stack = true;
                if (p->p_flags & PF_X)
                        return refuse(e,
                                      "asks for an executable stack (build with -z noexecstack)");
                break;
        case PT_DYNAMIC:
                e->dynamic = *p;
                e->has_dynamic = true;
                break;
        case PT_INTERP:
                return refuse(e, "is a program, not a shared object");
        case PT_TLS:
                e->tls = p->p_memsz;
                break;
        default:
                break;
        }
        return true;
}

static void read_build_id(struct elf *e, const Elf64_Phdr *p)
{
        uint64_t off = p->p_offset, end;
        Elf64_Nhdr n;

        if (p->p_filesz > e->bytes.n || off > e->bytes.n - p->p_filesz)
                return;
        end = off + p->p_filesz;
        while (end - off >= sizeof(n) && copy_out(e, off, &n, sizeof(n))) {
                uint64_t name = off + sizeof(n);
                uint64_t desc = name + ((uint64_t)n.n_namesz + 3) / 4 * 4;
                uint64_t next = desc + ((uint64_t)n.n_descsz + 3) / 4 * 4;
                if (next > end)
                        return;
                if (n.n_type == NT_GNU_BUILD_ID && n.n_namesz == 4 &&
                    memcmp(e->bytes.p + name, "GNU", 4) == 0) {
                        size_t take = MIN(n.n_descsz, (sizeof(e->facts.build_id) - 1) / 2);
                        crypto_hex(e->facts.build_id, e->bytes.p + desc, take);
                        e->facts.build_id[2 * take] = '\0';
                        return;
                }
                off = next;
        }
}

static bool read_segments(struct elf *e)
{
        Elf64_Ehdr h;
        Elf64_Phdr p;

        if (!check_header(e, &h))
                return false;
        for (unsigned i = 0; i < h.e_phnum; i++) {
                if (!copy_out(e, h.e_phoff + (uint64_t)i * sizeof(p), &p, sizeof(p)))
                        return refuse(e, "has malformed program headers");
                if (!check_segment(e, &p))
                        return false;
                if (p.p_type == PT_NOTE)
                        read_build_id(e, &p);
        }
        if (!e->has_stack)
                return refuse(e, "does not say that its stack is not executable (build with -z "
                                 "noexecstack)");
        if (!e->has_dynamic)
                return refuse(e, "is not a shared object");
        return true;
}

static bool note_dynamic(struct elf *e, const Elf64_Dyn *d)
{
        switch (d->d_tag) {
        case DT_STRTAB:
                e->strtab = d->d_un.d_ptr;
                break;
        case DT_STRSZ:
                e->strsz = d->d_un.d_val;
                break;
        case DT_SYMTAB:
                e->symtab = d->d_un.d_ptr;
                break;
        case DT_GNU_HASH:
                e->gnu_hash = d->d_un.d_ptr;
                break;
        case DT_HASH:
                e->hash = d->d_un.d_ptr;
                break;
        case DT_TEXTREL:
                e->textrel = true;
                break;
        case DT_FLAGS:
                e->flags = d->d_un.d_val;
                break;
        case DT_FLAGS_1:
                e->flags_1 = d->d_un.d_val;
                break;
        case DT_NEEDED:
                if (e->n_needed == NEEDED_MAX)
                        return refuse(e, "needs more than %d libraries", NEEDED_MAX);
                e->needed[e->n_needed++] = d->d_un.d_val;
                break;
        default:
                break;
        }
        return true;
}

static bool read_dynamic(struct elf *e)
{
        Elf64_Dyn d;

        for (uint64_t off = 0;; off += sizeof(d)) {
                if (off + sizeof(d) > e->dynamic.p_filesz ||
                    off > UINT64_MAX - e->dynamic.p_offset ||
                    !copy_out(e, e->dynamic.p_offset + off, &d, sizeof(d)))
                        return refuse(e, "has a malformed dynamic section");
                if (d.d_tag == DT_NULL)
                        break;
                if (!note_dynamic(e, &d))
                        return false;
        }
        if (e->textrel || (e->flags & DF_TEXTREL))
                return refuse(e, "has text relocations (build with -fPIC)");
        if (e->flags_1 & DF_1_PIE)
                return refuse(e, "is a program, not a shared object");
        if ((e->flags & DF_STATIC_TLS) && e->tls > ELF_STATIC_TLS_MAX)
                return refuse(e, "has %llu bytes of static thread-local storage, at most %d fit",
                              (unsigned long long)e->tls, ELF_STATIC_TLS_MAX);
        if (e->flags_1 & DF_1_NODELETE)
                e->facts.pinned = "it is marked nodelete";
        return true;
}

static bool library_allowed(str name)
{
        for (size_t i = 0; i < COUNT(allowed_libraries); i++) {
                str pattern = str_z(allowed_libraries[i]);
                if (str_ends(pattern, STR("*")) ? str_starts(name, str_head(pattern, pattern.n - 1))
                                                : str_eq(name, pattern))
                        return true;
        }
        return false;
}

static bool check_needed(struct elf *e)
{
        for (unsigned i = 0; i < e->n_needed; i++) {
                str name = string_at(e, e->needed[i]);
                if (name.p == NULL)
                        return refuse(e, "has a malformed dynamic section");
                if (!library_allowed(name))
                        return refuse(e, "needs %.*s, which modules may not be linked to",
                                      (int)MIN(name.n, 64), name.p);
                if (str_eq(name, STR("libstdc++.so.6")))
                        e->facts.pinned = "it uses libstdc++";
        }
        return true;
}

/* The last symbol of the longest chain ends the table. */
static bool count_gnu(const struct elf *e, uint64_t *count)
{
        uint32_t head[4]; /* buckets, first symbol, bloom words, shift */
        uint32_t last = 0, word;
        uint64_t buckets, chains;

        if (!copy_mapped(e, e->gnu_hash, head, sizeof(head)) || head[0] > SYMBOLS_MAX ||
            head[1] > SYMBOLS_MAX || head[2] > SYMBOLS_MAX)
                return false;
        buckets = e->gnu_hash + sizeof(head) + (uint64_t)head[2] * 8;
        chains = buckets + (uint64_t)head[0] * 4;
        for (uint32_t i = 0; i < head[0]; i++) {
                if (!copy_mapped(e, buckets + (uint64_t)i * 4, &word, 4))
                        return false;
                last = MAX(last, word);
        }
        if (last < head[1] || head[1] == 0)
                return false; /* empty: linkers then do not even say how many are undefined */
        for (; last <= SYMBOLS_MAX; last++) {
                if (!copy_mapped(e, chains + (uint64_t)(last - head[1]) * 4, &word, 4))
                        return false;
                if (word & 1) {
                        *count = (uint64_t)last + 1;
                        return true;
                }
        }
        return false;
}

static bool count_symbols(struct elf *e, uint64_t *count)
{
        uint32_t head[2]; /* buckets, chains: one per symbol */

        if (e->hash != 0 && copy_mapped(e, e->hash, head, sizeof(head)) && head[1] <= SYMBOLS_MAX) {
                *count = head[1];
                return true;
        }
        if (e->gnu_hash != 0 && count_gnu(e, count))
                return true;
        return refuse(e, "exports nothing (use WEIR_MODULE)");
}

static bool check_undefined(struct elf *e, str name)
{
        for (size_t i = 0; i < COUNT(forbidden_symbols); i++)
                if (str_eq(name, str_z(forbidden_symbols[i].name)))
                        return refuse(e, "calls %s(): %s", forbidden_symbols[i].name,
                                      forbidden_symbols[i].why);
        return true;
}

static bool check_symbols(struct elf *e)
{
        uint64_t count = 0;
        Elf64_Sym s;

        if (!count_symbols(e, &count))
                return false;
        for (uint64_t i = 1; i < count; i++) {
                str name;
                if (!copy_mapped(e, e->symtab + i * sizeof(s), &s, sizeof(s)))
                        return refuse(e, "has a malformed symbol table");
                name = string_at(e, s.st_name);
                if (name.p == NULL)
                        return refuse(e, "has a malformed symbol table");
                if (s.st_shndx != SHN_UNDEF && ELF64_ST_BIND(s.st_info) == STB_GNU_UNIQUE)
                        e->facts.pinned = "it defines a unique symbol (build with -fno-gnu-unique)";
                if (s.st_shndx == SHN_UNDEF && !check_undefined(e, name))
                        return false;
        }
        return true;
}

bool elf_lint(str bytes, struct elf_facts *facts, struct elf_error *err)
{
        struct elf e = {.bytes = bytes, .err = err};

        if (!read_segments(&e) || !read_dynamic(&e) || !check_needed(&e) || !check_symbols(&e))
                return false;
        *facts = e.facts;
        return true;
}
