/*
 * What a shared object would do to the process that opens it, read from its bytes before it is
 * opened.
 *
 * Pure: no file, no memory of its own.  Refused is what weakens the process (writable code, an
 * executable stack, text relocations) and what is known to crash it later (handlers and keys that
 * outlive the object); what merely keeps the object from being unloaded is told as `pinned`.
 */
#ifndef MODULE_ELF_H
#define MODULE_ELF_H

#include "base/str.h"

#define ELF_STATIC_TLS_MAX 256 /* bytes; more exhausts the space that every thread reserves */

struct elf_facts {
        const char *pinned; /* why dlclose will not unmap it; NULL: it will */
        char build_id[41];  /* hex, cut; empty when there is none */
};

struct elf_error {
        char text[192]; /* the rule that was broken, without the file's name */
};

/* false: *err says which rule; *facts is untouched then. */
MUST_CHECK bool elf_lint(str bytes, struct elf_facts *facts, struct elf_error *err);

#endif
