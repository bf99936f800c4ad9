/*
 * `weir module new`: a module to start from.
 */
#ifndef DAEMON_SKELETON_H
#define DAEMON_SKELETON_H

/* Writes FOLDER/NAME with source, Makefile, cases and README, which must not be there yet; all of
 * it or nothing.  Says so, or what was wrong; exit status. */
int skeleton_new(const char *name, const char *folder);

#endif
