/* SPDX-License-Identifier: Apache-2.0 */
#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "spiffe.h"

#define SCHEME "spiffe://"

static bool domain_char(char ch)
{
	return islower((unsigned char)ch) || isdigit((unsigned char)ch) ||
	       (ch && strchr(".-_", ch));
}

static bool path_char(char ch)
{
	return isalnum((unsigned char)ch) || (ch && strchr(".-_", ch));
}

/* Return: what comes behind the trust domain, NULL when there is none of such a form */
static const char *behind_domain(const char *id)
{
	const char *at = id + sizeof(SCHEME) - 1;

	if (strncmp(id, SCHEME, sizeof(SCHEME) - 1) || !domain_char(*at))
		return NULL;
	while (domain_char(*at))
		at++;
	return at;
}

static bool node_ok(const char *name)
{
	size_t len = 0;

	while (path_char(name[len]))
		len++;
	return len && len < SPIFFE_NODE_MAX && !name[len] && strcmp(name, ".") &&
	       strcmp(name, "..");
}

int spiffe_node(const char *id, char node[SPIFFE_NODE_MAX])
{
	const char *path = strlen(id) < SPIFFE_MAX ? behind_domain(id) : NULL;
	const char *name;

	if (!path || strncmp(path, SPIFFE_PATH, sizeof(SPIFFE_PATH) - 1))
		return -EINVAL;
	name = path + sizeof(SPIFFE_PATH) - 1;
	if (!node_ok(name))
		return -EINVAL;
	strcpy(node, name);
	return 0;
}

bool spiffe_domain_ok(const char *domain)
{
	size_t len = 0;

	while (domain_char(domain[len]))
		len++;
	return len && len < SPIFFE_MAX && !domain[len];
}

int spiffe_make(const char *domain, const char *node, char id[SPIFFE_MAX])
{
	if (!spiffe_domain_ok(domain) || !node_ok(node))
		return -EINVAL;
	if (snprintf(id, SPIFFE_MAX, SCHEME "%s" SPIFFE_PATH "%s", domain, node) >= SPIFFE_MAX)
		return -ERANGE;
	return 0;
}

bool spiffe_pattern_ok(const char *pattern)
{
	const char *at = pattern;

	if (strlen(pattern) >= SPIFFE_MAX || strncmp(at, SCHEME, sizeof(SCHEME) - 1))
		return false;
	at += sizeof(SCHEME) - 1;
	while (domain_char(*at) || *at == '*')
		at++;
	if (*at != '/' || at[-1] == '/')
		return false;
	while (path_char(*at) || *at == '*' || *at == '/')
		at++;
	return !*at;
}

bool spiffe_match(const char *pattern, const char *id)
{
	/* where the last star began to stand for something, and for how much */
	const char *star = NULL, *from = NULL;

	while (*id) {
		if (*pattern == '*') {
			star = pattern++;
			from = id;
		} else if (*pattern == *id) {
			pattern++;
			id++;
		} else if (star && *from != '/') {
			pattern = star + 1;
			id = ++from;
		} else {
			return false;
		}
	}
	while (*pattern == '*')
		pattern++;
	return !*pattern;
}

void spiffe_siblings(const char *id, char pattern[SPIFFE_MAX])
{
	const char *path = behind_domain(id);

	snprintf(pattern, SPIFFE_MAX, "%.*s" SPIFFE_PATH "*", path ? (int)(path - id) : 0, id);
}
