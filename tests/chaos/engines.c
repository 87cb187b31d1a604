/* SPDX-License-Identifier: Apache-2.0 */
/* engines.c - the threads: when they work, and when they rest */
#include <poll.h>
#include <time.h>
#include "tests/chaos/chaos.h"

#define IDLE_US 3000u /* between turns: two processors are for all nodes of all clusters */
#define AWAY_US 5000u /* from one try to attach to the next */

uint64_t chaos_now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * WFI_NSEC_PER_SEC + (uint64_t)ts.tv_nsec;
}

void chaos_pause_us(uint32_t us)
{
	const struct timespec ts = { .tv_sec = us / 1000000, .tv_nsec = us % 1000000 * 1000 };

	nanosleep(&ts, NULL);
}

void chaos_count(struct chaos *c, enum chaos_count what, uint64_t more)
{
	atomic_fetch_add_explicit(&c->counts[what], more, memory_order_relaxed);
}

bool chaos_goes_on(struct chaos *c)
{
	bool goes_on;

	pthread_mutex_lock(&c->lock);
	if (c->park && !c->quit) {
		c->nr_parked++;
		pthread_cond_broadcast(&c->changed);
		while (c->park && !c->quit)
			pthread_cond_wait(&c->changed, &c->lock);
		c->nr_parked--;
	}
	goes_on = !c->quit;
	pthread_mutex_unlock(&c->lock);
	return goes_on;
}

/* ---- what threads do ---- */

enum role { ROLE_WORKER, ROLE_HANDOFF, ROLE_CHANNEL };

struct engine {
	struct chaos *c;
	enum role role;
	unsigned node; /* of a worker */
	uint64_t seed;
};

static void work(struct engine *me)
{
	struct seat s;

	seat_init(&s, me->c, me->node, "worker", me->seed);
	while (chaos_goes_on(me->c)) {
		if (seat_ready(&s))
			worker_turn(&s);
		chaos_pause_us(seat_rand(&s, IDLE_US));
	}
	seat_fini(&s);
}

static void carry(struct engine *me, const char *name,
		  void (*turn)(struct seat *from, struct seat *to))
{
	struct seat from[CHAOS_NODES_MAX], to[CHAOS_NODES_MAX];
	uint64_t rand = me->seed;
	unsigned i, k;

	for (i = 0; i < me->c->nr; i++) {
		seat_init(&from[i], me->c, i, name, test_rand(&rand));
		seat_init(&to[i], me->c, i, name, test_rand(&rand));
	}
	while (chaos_goes_on(me->c)) {
		for (i = 0; i < me->c->nr; i++) {
			seat_yield(&from[i]);
			seat_yield(&to[i]);
		}
		i = (unsigned)(test_rand(&rand) % me->c->nr);
		k = (unsigned)(test_rand(&rand) % me->c->nr);
		if (seat_ready(&from[i]) && seat_ready(&to[k]))
			turn(&from[i], &to[k]);
		chaos_pause_us((uint32_t)(test_rand(&rand) % AWAY_US));
	}
	for (i = 0; i < me->c->nr; i++) {
		seat_fini(&from[i]);
		seat_fini(&to[i]);
	}
}

static void *engine_run(void *ctx)
{
	struct engine me = *(struct engine *)ctx;

	free(ctx);
	if (me.role == ROLE_WORKER)
		work(&me);
	else if (me.role == ROLE_HANDOFF)
		carry(&me, "handoff", handoff_turn);
	else
		carry(&me, "channel", channel_turn);
	return NULL;
}

/* ---- the main thread's side ---- */

static void engine_start(struct chaos *c, enum role role, unsigned node, uint64_t seed)
{
	struct engine *e = malloc(sizeof(*e));

	if (!e)
		abort();
	*e = (struct engine){ .c = c, .role = role, .node = node, .seed = seed };
	if (pthread_create(&c->threads[c->nr_threads++], NULL, engine_run, e))
		abort();
}

void engines_start(struct chaos *c, uint64_t seed)
{
	unsigned i;

	c->control = calloc(c->nr, sizeof(*c->control));
	if (!c->control)
		abort();
	for (i = 0; i < c->nr; i++) {
		seat_init(&c->control[i], c, i, "control", test_rand(&seed));
		engine_start(c, ROLE_WORKER, i, test_rand(&seed));
	}
	engine_start(c, ROLE_HANDOFF, 0, test_rand(&seed));
	engine_start(c, ROLE_CHANNEL, 0, test_rand(&seed));
	c->nr_sessions = 1 + 1 + 2 * 2;
}

void engines_park(struct chaos *c)
{
	pthread_mutex_lock(&c->lock);
	c->park = true;
	while (c->nr_parked < c->nr_threads && !atomic_load(&c->failed))
		pthread_cond_wait(&c->changed, &c->lock);
	pthread_mutex_unlock(&c->lock);
}

void engines_resume(struct chaos *c)
{
	pthread_mutex_lock(&c->lock);
	c->park = false;
	pthread_cond_broadcast(&c->changed);
	pthread_mutex_unlock(&c->lock);
}

void engines_stop(struct chaos *c)
{
	unsigned i;

	pthread_mutex_lock(&c->lock);
	c->quit = true;
	pthread_cond_broadcast(&c->changed);
	pthread_mutex_unlock(&c->lock);
	for (i = 0; i < c->nr_threads; i++)
		pthread_join(c->threads[i], NULL);
	for (i = 0; i < c->nr; i++)
		seat_fini(&c->control[i]);
	free(c->control);
}
