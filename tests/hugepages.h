/* SPDX-License-Identifier: Apache-2.0 */
/* hugepages.h - huge pages of 2 MiB that a test sets aside (vm.nr_hugepages), and gives back */
#ifndef TEST_HUGEPAGES_H
#define TEST_HUGEPAGES_H

#define HUGE_BYTES (2ul << 20)

/* free ones now, and promised to nobody */
unsigned long test_huge_free(void);

/*
 * runs @tests in a child with @nr more of them, which go back whatever becomes of it. Return: exit
 * status; 77, and a line that says why, when they can't be had
 */
int test_huge_run(unsigned long nr, int (*tests)(void));

#endif
