/*
 * A decoder that is taken over by a file must not reach anything but the descriptors it was given. Two fences,
 * each whole without the other: landlock (no path can be opened, made or removed, no network) and a seccomp
 * filter, a list of the system calls that decoding, oneDNN, OpenMP and malloc need. Whatever is not in the
 * list is EPERM, so that libraries take their fallbacks; what is newer than the headers is ENOSYS, as on an
 * older kernel. There is no fork, no exec, no socket, no signal to another process.
 *
 * What the fences can't stop: stat of a path by newfstatat (glibc's fstat uses it, a filter can't read the
 * path; with AT_EMPTY_PATH only), and use of the processor and memory. PROT_EXEC stays: oneDNN compiles.
 *
 * Sanitizers open /proc and start processes for their reports: with them neither fence is put up.
 */
#include "sched/worker/worker.h"

#include "engine/base/log.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/audit.h>
#include <linux/capability.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <stdbool.h>
#include <stddef.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

/* --- landlock --- */

/* linux/landlock.h of ABI 6; older headers lack the later fields. */
struct ruleset {
	uint64_t files, network, scopes;
};

static const struct {
	int abi;
	struct ruleset all; /* every right that this ABI knows */
	size_t size;
} abis[] = {
	{6, {0xffff, 3, 3}, 24}, /* signals, abstract sockets */
	{5, {0xffff, 3, 0}, 16}, /* ioctl of devices */
	{4, {0x7fff, 3, 0}, 16}, /* bind, connect */
	{3, {0x7fff, 0, 0}, 8},  /* truncate */
	{2, {0x3fff, 0, 0}, 8},  /* refer */
	{1, {0x1fff, 0, 0}, 8},
};

int confine_paths(void)
{
#ifdef __NR_landlock_create_ruleset
	long abi = syscall(__NR_landlock_create_ruleset, NULL, 0, 1 /* LANDLOCK_CREATE_RULESET_VERSION */);
	size_t i = 0;
	int fd, r;

	if (abi < 1)
		return -EOPNOTSUPP;
	while (abis[i].abi > abi)
		i++;
	fd = (int)syscall(__NR_landlock_create_ruleset, &abis[i].all, abis[i].size, 0);
	if (fd < 0)
		return -errno;
	r = syscall(__NR_landlock_restrict_self, fd, 0) < 0 ? -errno : 0;
	close(fd);
	return r;
#else
	return -EOPNOTSUPP;
#endif
}

/* --- seccomp --- */

struct rule {
	int call;
	enum { ALWAYS, IS, HAS, MISSING } when; /* argument `arg` is `value`, has this bit; ENOSYS */
	int arg;
	uint32_t value;
};

#define OWN_PID UINT32_MAX /* stands for it */

/* clang-format off */
#define RULE(name, when, arg, value) {__NR_##name, when, arg, value}
#define MAY(name) RULE(name, ALWAYS, 0, 0)
static const struct rule rules[] = {
	/* descriptors it has */
	MAY(read), MAY(write), MAY(readv), MAY(writev), MAY(pread64), MAY(pwrite64), MAY(preadv),
	MAY(lseek), MAY(fstat), MAY(ftruncate), MAY(fallocate), MAY(fsync), MAY(fdatasync),
	MAY(close), MAY(close_range), MAY(dup), MAY(dup3), MAY(memfd_create),
	RULE(newfstatat, HAS, 3, AT_EMPTY_PATH),
	RULE(fcntl, IS, 1, F_DUPFD), RULE(fcntl, IS, 1, F_DUPFD_CLOEXEC), RULE(fcntl, IS, 1, F_GETFD),
	RULE(fcntl, IS, 1, F_SETFD), RULE(fcntl, IS, 1, F_GETFL), RULE(fcntl, IS, 1, F_ADD_SEALS),
	RULE(fcntl, IS, 1, F_GET_SEALS),
	/* its socket */
	MAY(sendmsg), MAY(recvmsg), MAY(ppoll), MAY(getsockopt), MAY(shutdown),
	/* memory */
	MAY(mmap), MAY(munmap), MAY(mremap), MAY(mprotect), MAY(madvise), MAY(brk), MAY(mincore),
	/* threads; clone3's flags lie in memory where a filter can't see them: without it glibc takes clone */
	RULE(clone3, MISSING, 0, 0), RULE(clone, HAS, 0, CLONE_THREAD), MAY(futex), MAY(set_robust_list),
	MAY(rseq), MAY(set_tid_address), MAY(sched_yield), MAY(sched_getaffinity),
	MAY(sched_setaffinity), MAY(getcpu), MAY(gettid), MAY(getpid), MAY(membarrier),
	MAY(exit), MAY(exit_group),
	/* signals, to itself only */
	MAY(rt_sigaction), MAY(rt_sigprocmask), MAY(rt_sigreturn), MAY(sigaltstack),
	MAY(restart_syscall), RULE(tgkill, IS, 0, OWN_PID),
	/* clocks and questions */
	MAY(clock_gettime), MAY(clock_getres), MAY(clock_nanosleep), MAY(nanosleep), MAY(gettimeofday),
	MAY(getrusage), MAY(getrandom), MAY(uname), MAY(sysinfo), MAY(getuid), MAY(geteuid),
	MAY(getgid), MAY(getegid), RULE(prlimit64, IS, 2, 0),
#ifdef __NR_poll /* old calls that newer machines lack */
	MAY(poll), MAY(dup2), MAY(time), MAY(arch_prctl),
#endif
};
/* clang-format on */

#define N_RULES  (sizeof(rules) / sizeof(rules[0]))
#define PER_RULE 7
#define NEWEST   __NR_futex_waitv

#if defined(__x86_64__)
#define MACHINE AUDIT_ARCH_X86_64
#elif defined(__aarch64__)
#define MACHINE AUDIT_ARCH_AARCH64
#endif

#ifdef MACHINE
#define LOAD(field)          BPF_STMT(BPF_LD | BPF_W | BPF_ABS, (uint32_t)offsetof(struct seccomp_data, field))
#define RETURN(value)        BPF_STMT(BPF_RET | BPF_K, (value))
#define REFUSE(error)        RETURN(SECCOMP_RET_ERRNO | (error))
#define IF(test, k, yes, no) BPF_JUMP(BPF_JMP | (test) | BPF_K, (k), (yes), (no))

/* The code of one rule; the call's number is in the accumulator before and, when it went on, after. */
static size_t add_rule(struct sock_filter *f, const struct rule *rule)
{
	const uint32_t arg = (uint32_t)(offsetof(struct seccomp_data, args) + (size_t)rule->arg * 8),
		       value = rule->value == OWN_PID ? (uint32_t)getpid() : rule->value,
		       call = (uint32_t)rule->call;
	const struct sock_filter always[] = {
		IF(BPF_JEQ, call, 0, 1),
		rule->when == MISSING ? (struct sock_filter)REFUSE(ENOSYS)
				      : (struct sock_filter)RETURN(SECCOMP_RET_ALLOW),
	};
	/* Little-endian: the low half comes first. */
	const struct sock_filter is[] = {
		IF(BPF_JEQ, call, 0, 6),
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, arg + 4),
		IF(BPF_JEQ, 0, 0, 3),
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, arg),
		IF(BPF_JEQ, value, 0, 1),
		RETURN(SECCOMP_RET_ALLOW),
		LOAD(nr),
	};
	const struct sock_filter has[] = {
		IF(BPF_JEQ, call, 0, 4),
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, arg),
		IF(BPF_JSET, value, 0, 1),
		RETURN(SECCOMP_RET_ALLOW),
		LOAD(nr),
	};

	switch (rule->when) {
	case IS:
		memcpy(f, is, sizeof(is));
		return sizeof(is) / sizeof(is[0]);
	case HAS:
		memcpy(f, has, sizeof(has));
		return sizeof(has) / sizeof(has[0]);
	default:
		memcpy(f, always, sizeof(always));
		return sizeof(always) / sizeof(always[0]);
	}
}

int confine_calls(void)
{
	struct sock_filter code[8 + N_RULES * PER_RULE] = {
		LOAD(arch),
		IF(BPF_JEQ, MACHINE, 1, 0),
		RETURN(SECCOMP_RET_KILL_PROCESS),
		LOAD(nr),
	};
	size_t n = 4;
	struct sock_fprog program = {.filter = code};

	for (size_t i = 0; i < N_RULES; i++)
		n += add_rule(code + n, &rules[i]);
	/* x86-64's 32-bit numbering has bit 30 set and lands here too. */
	code[n++] = (struct sock_filter)IF(BPF_JGT, NEWEST, 1, 0);
	code[n++] = (struct sock_filter)REFUSE(EPERM);
	code[n++] = (struct sock_filter)REFUSE(ENOSYS);
	program.len = (unsigned short)n;
	if (syscall(__NR_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_TSYNC, &program) != 0)
		return errno == ENOSYS || errno == EINVAL ? -EOPNOTSUPP : -errno;
	return 0;
}
#else
int confine_calls(void)
{
	return -EOPNOTSUPP; /* another machine needs its table tried there */
}
#endif

static int drop_capabilities(void)
{
	struct __user_cap_header_struct head = {.version = _LINUX_CAPABILITY_VERSION_3};
	const struct __user_cap_data_struct none[2] = {0};

	return syscall(__NR_capset, &head, none) < 0 ? -errno : 0;
}

int worker_confine(void)
{
	static const struct {
		const char *name;
		int (*put_up)(void);
	} fences[] = {
		{"capabilities", drop_capabilities}, {"landlock", confine_paths}, {"seccomp", confine_calls}};

	tzset(); /* the log's clock reads /etc/localtime at first use */
	for (size_t i = 0; i < sizeof(fences) / sizeof(fences[0]) && !WORKER_SANITIZED; i++) {
		int r = fences[i].put_up();

		if (r == -EOPNOTSUPP)
			log_trace(LOG_WIRE, "this kernel has no %s: workers go without", fences[i].name);
		else if (r < 0)
			return r;
	}
	return 0;
}
