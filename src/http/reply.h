/*
 * Responses that weir makes itself.
 */
#ifndef HTTP_REPLY_H
#define HTTP_REPLY_H

#include "http/request.h"

/* Fills r->res and r->res_body (framing LENGTH, ended): Date, Content-Type, Retry-After with 503.
 * Drops what r->res_body held.  body is copied; absent: a line made of the status and the reason's
 * words.  Then flow calls r->client->head(r). */
void reply_fill(struct request *r, int status, enum reason why, str body, str content_type);

#endif
