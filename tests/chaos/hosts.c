/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <fcntl.h>
#include <net/if.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>
#include "tests/chaos/hosts.h"

#define NETWORK "10.97.5"

/* what a host comes from: namespaces stay while somebody has them open */
static int host_open(struct host *host)
{
	char path[64], made;
	int fds[2], ret = -EIO;
	pid_t pid;

	host->net = host->mnt = -1;
	if (pipe2(fds, O_CLOEXEC))
		return -errno;
	pid = fork();
	if (!pid) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		if (unshare(CLONE_NEWNET | CLONE_NEWNS) || write(fds[1], "", 1) != 1)
			_exit(1);
		for (;;)
			pause();
	}
	close(fds[1]);
	if (pid > 0 && read(fds[0], &made, 1) == 1) {
		snprintf(path, sizeof(path), "/proc/%d/ns/net", (int)pid);
		host->net = open(path, O_RDONLY | O_CLOEXEC);
		snprintf(path, sizeof(path), "/proc/%d/ns/mnt", (int)pid);
		host->mnt = open(path, O_RDONLY | O_CLOEXEC);
		ret = host->net < 0 || host->mnt < 0 ? -EIO : 0;
	}
	close(fds[0]);
	if (pid > 0) {
		kill(pid, SIGKILL);
		waitpid(pid, NULL, 0);
	}
	return ret;
}

int host_enter(const struct host *host)
{
	return setns(host->net, CLONE_NEWNET) || setns(host->mnt, CLONE_NEWNS) ? -errno : 0;
}

/* a script of the shell, in @host, or here. Return: 0, -EIO */
static int run_script(const struct host *host, const char *script)
{
	int status = -1, null;
	pid_t pid = fork();

	if (!pid) {
		null = open("/dev/null", O_RDWR);
		dup2(null, STDERR_FILENO);
		if (host && host_enter(host))
			_exit(1);
		execl("/bin/sh", "sh", "-ec", script, (char *)NULL);
		_exit(127);
	}
	if (pid > 0)
		waitpid(pid, &status, 0);
	return status ? -EIO : 0;
}

static int wire_up(struct hosts *h, unsigned i)
{
	struct host *host = &h->host[i];
	char script[512];
	int ret;

	snprintf(host->addr, sizeof(host->addr), NETWORK ".%u", i + 1);
	/* nobody waits for the bridge to have learned who is where */
	snprintf(script, sizeof(script),
		 "ip link add wire%u type veth peer name eth0 netns /proc/%d/fd/%d\n"
		 "ip link set wire%u master hub up",
		 i, (int)getpid(), host->net, i);
	ret = run_script(NULL, script);
	if (ret)
		return ret;
	snprintf(script, sizeof(script),
		 "ip link set lo up\nip addr add %s/24 dev eth0\nip link set eth0 up", host->addr);
	return run_script(host, script);
}

/* namespaces that have another root than this process would show it other files */
static bool root_is_whole(void)
{
	FILE *in = fopen("/proc/self/mountinfo", "re");
	char line[1024], at[512];
	bool whole = false;

	while (in && fgets(line, sizeof(line), in))
		whole |= sscanf(line, "%*s %*s %*s %*s %511s", at) == 1 && !strcmp(at, "/");
	if (in)
		fclose(in);
	return whole;
}

static int wires_lose(struct hosts *h, unsigned nr)
{
	char name[16];
	unsigned i;

	for (i = 0; i < nr; i++) {
		snprintf(name, sizeof(name), "wire%u", i);
		h->loss_maps[i] = loss_attach((int)if_nametoindex(name));
		if (h->loss_maps[i] < 0)
			return h->loss_maps[i];
	}
	return 0;
}

int hosts_init(struct hosts *h, unsigned nr, char *why, size_t why_len)
{
	int ret = 0;

	memset(h, 0, sizeof(*h));
	if (geteuid() || unshare(CLONE_NEWNET)) {
		snprintf(why, why_len, "only root makes network namespaces");
		return -EPERM;
	}
	if (!root_is_whole()) {
		snprintf(why, why_len, "the root is no mount point: namespaces are not whole here");
		return -EINVAL;
	}
	ret = run_script(NULL,
			 "ip link set lo up\nip link add hub type bridge\nip link set hub up");
	while (!ret && h->nr < nr) {
		ret = host_open(&h->host[h->nr++]);
		if (!ret)
			ret = wire_up(h, h->nr - 1);
	}
	if (ret) {
		snprintf(why, why_len, "no bridge of network namespaces can be made here (ip)");
		hosts_fini(h);
		return ret;
	}
	ret = wires_lose(h, nr);
	if (ret)
		h->no_loss = strerror(-ret);
	return 0;
}

void hosts_fini(struct hosts *h)
{
	unsigned i;

	for (i = 0; i < h->nr; i++) {
		if (h->loss_maps[i] > 0)
			close(h->loss_maps[i]);
		close(h->host[i].net);
		close(h->host[i].mnt);
	}
	h->nr = 0;
}

void hosts_lose(struct hosts *h, unsigned from, unsigned to, unsigned percent, uint32_t seed)
{
	if (h->no_loss || h->loss[to][from] == percent)
		return;
	h->loss[to][from] = percent;
	if (loss_set(h->loss_maps[to], from + 1, percent, seed))
		abort();
}

void hosts_unplug(struct hosts *h, unsigned host, bool down)
{
	struct ifreq ifr = { .ifr_flags = 0 };
	int fd;

	if (h->down[host] == down)
		return;
	h->down[host] = down;
	snprintf(ifr.ifr_name, sizeof(ifr.ifr_name), "wire%u", host);
	fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	if (fd < 0 || ioctl(fd, SIOCGIFFLAGS, &ifr))
		abort();
	ifr.ifr_flags = (short)(down ? ifr.ifr_flags & ~IFF_UP : ifr.ifr_flags | IFF_UP);
	if (ioctl(fd, SIOCSIFFLAGS, &ifr))
		abort();
	close(fd);
}
