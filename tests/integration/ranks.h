/* SPDX-License-Identifier: Apache-2.0 */
/**
 * ranks.h - engines that share a model's heads, and handoffs between two layouts of it
 */
#ifndef TEST_RANKS_H
#define TEST_RANKS_H

#include "tests/integration/node.h"

#define NL 3u /* layers */
#define HB 32u /* bytes of a head's vector */
#define HEADS 8u /* of the model */
#define TOKENS 192u /* of a handoff: pages of 8, 16, 24, 32, 48 and 64 fit */
#define RANKS_MAX 8u
#define BLOCKS_MAX (TOKENS / 8)
#define END_MS 1000

/* of the engines' tenant; NULL: the default one */
extern const char *ranks_token;

enum order { NHD, HND };

/* one side's engine, with its share of the model's heads */
struct rank {
	struct test_engine e;
	struct weft_layout layout;
	uint32_t nr_blocks;
	struct weft_slot slots[BLOCKS_MAX];
	struct weft_key keys[BLOCKS_MAX];
	struct weft_ticket ticket; /* receivers */
	uint64_t lease;
	uint8_t landed[BLOCKS_MAX]; /* layers, a bit each */
	char *mem; /* NULL: blocks are in slots */
	uint64_t mem_len;
	uint32_t region;
	struct weft_place places[BLOCKS_MAX];
};

/* memory of an engine's, to have its blocks in */
struct rank_memory {
	/* to .mem of .mem_len, and .region */
	void (*open)(struct rank *r);
	void (*close)(struct rank *r);
};

/* how a side lays out what it has */
struct ranks {
	uint32_t tp;
	uint32_t page;
	enum order order;
	const struct rank_memory *memory; /* NULL: in slots */
	uint8_t flags; /* of its expectations */
};

/* of the bytes of one handoff */
uint64_t ranks_name(void);
void rank_open(struct rank *r, const struct test_node *n, const struct ranks *s, uint32_t rank);
void rank_close(struct rank *r, const struct ranks *s);
/* writes elements of a layer, or with @check looks at them. Return: false when one has other bytes
 */
bool each_element(struct rank *r, uint64_t name, uint32_t layer, uint32_t first_token,
		  uint32_t nr_tokens, bool check);
void expect(struct rank *r, uint64_t name, uint8_t flags);
/* an expectation that is refused. Return: why */
int expect_as(struct rank *r, const struct weft_layout *l);
int push_as(struct rank *r, const struct weft_ticket *ticket, const struct weft_layout *l,
	    uint32_t layer, uint32_t nr_layers, uint32_t first, uint32_t nr);
void claim(struct rank *r);
void unclaim(struct rank *r);
/* of @from's heads those that @to has, as a layout. Return: false: none */
bool part_for(const struct weft_layout *from, const struct weft_layout *to,
	      struct weft_layout *out);
/* layer by layer, from all to all that share heads; with keys and values together, or @apart */
void ranks_handoff(const struct test_node *at_from, const struct ranks *from,
		   const struct test_node *at_to, const struct ranks *to, bool apart);
/* of many kinds, from the @first on every @step-th. @from, @to: what all have in common */
void ranks_all(const struct test_node *at_from, const struct ranks *from,
	       const struct test_node *at_to, const struct ranks *to, unsigned first,
	       unsigned step);

#endif
