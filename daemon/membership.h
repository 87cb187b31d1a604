/* SPDX-License-Identifier: Apache-2.0 */
/**
 * membership.h - what weftd makes of "membership" in its settings: members, and values from there
 *
 * Settings and tenants that the membership has stand above those of the file. What may not change
 * while the node runs, or is wrong, is refused by name, in the log and in weft status, and what was
 * in force before stays; a value that is taken away again leaves what the file says.
 */
#ifndef WEFTD_MEMBERSHIP_H
#define WEFTD_MEMBERSHIP_H

#include "config.h"
#include "control.h"

struct membership;

/**
 * membership_open - @cfg is what wfi_config_finish() left, and is in force in @node
 *
 * Return: 0, and NULL where the settings name none; -errno: logged
 */
int membership_open(const struct wfi_config *cfg, struct node *node, struct membership **out);
/* for control_create(); NULL for NULL */
const struct control_membership *membership_control(struct membership *ms);
/* takes NULL. The control thread has ended */
void membership_close(struct membership *ms);

/* a tenant as @cfg has it, for the node; strings are lent */
void membership_tenant(const struct wfi_config *cfg, const struct wfi_config_tenant *t,
		       struct wfi_tenant_opts *out);

#endif
