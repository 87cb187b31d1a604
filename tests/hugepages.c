/* SPDX-License-Identifier: Apache-2.0 */
#include <stdbool.h>
#include <stdio.h>
#include <sys/wait.h>
#include <unistd.h>
#include "tests/hugepages.h"

#define SYSCTL "/proc/sys/vm/nr_hugepages"
#define POOL "/sys/kernel/mm/hugepages/hugepages-2048kB/"

static bool number_read(const char *path, unsigned long *out)
{
	FILE *file = fopen(path, "re");
	bool ok = file && fscanf(file, "%lu", out) == 1;

	if (file)
		fclose(file);
	return ok;
}

static bool number_write(unsigned long n)
{
	FILE *file = fopen(SYSCTL, "we");
	bool ok = file && fprintf(file, "%lu\n", n) > 0;

	if (file && fclose(file))
		ok = false;
	return ok;
}

unsigned long test_huge_free(void)
{
	unsigned long nr, promised;

	if (!number_read(POOL "free_hugepages", &nr) ||
	    !number_read(POOL "resv_hugepages", &promised))
		return 0;
	return nr - promised;
}

int test_huge_run(unsigned long nr, int (*tests)(void))
{
	unsigned long before;
	int status = 0;
	bool had;
	pid_t pid;

	had = number_read(SYSCTL, &before) && number_write(before + nr);
	if (!had || test_huge_free() < nr) {
		if (had)
			number_write(before);
		printf("%lu huge pages can't be set aside here (%s)\n", nr, SYSCTL);
		return 77;
	}
	pid = fork();
	if (!pid)
		_exit(tests());
	if (pid < 0 || waitpid(pid, &status, 0) != pid)
		status = 1;
	if (!number_write(before))
		fprintf(stderr, "vm.nr_hugepages was %lu and could not be set back\n", before);
	return status != 0;
}
