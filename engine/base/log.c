#include "engine/base/log.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

unsigned log_trace_mask;
static const char *process = "inferfs";
static const char *const channel_names[LOG_CHANNELS] = {"fs", "sched", "engine", "wire"};

void log_init(const char *process_name)
{
	process = process_name;
}

void log_trace_set(unsigned mask)
{
	__atomic_store_n(&log_trace_mask, mask, __ATOMIC_RELAXED);
}

/* One write(2) a line, so that lines of several processes on one file do not mix. */
static void line(const char *level, const char *fmt, va_list ap)
{
	char text[1024];
	struct timespec ts;
	struct tm tm;
	int n, m;

	clock_gettime(CLOCK_REALTIME, &ts);
	localtime_r(&ts.tv_sec, &tm);
	n = snprintf(text, sizeof(text), "%02d:%02d:%02d.%03ld %s[%d] %s: ", tm.tm_hour, tm.tm_min, tm.tm_sec,
		     ts.tv_nsec / 1000000, process, (int)getpid(), level);
	m = vsnprintf(text + n, sizeof(text) - n - 1, fmt, ap);
	if (m < 0)
		m = 0;
	n += m < (int)sizeof(text) - n - 1 ? m : (int)sizeof(text) - n - 2;
	text[n++] = '\n';
	if (write(STDERR_FILENO, text, n) < 0)
		return; /* nowhere left to say it */
}

#define LEVEL(name, text)               \
	void name(const char *fmt, ...) \
	{                               \
		va_list ap;             \
		va_start(ap, fmt);      \
		line(text, fmt, ap);    \
		va_end(ap);             \
	}
LEVEL(log_error, "error")
LEVEL(log_warn, "warning")
LEVEL(log_info, "info")

void log_trace_line(enum log_channel channel, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	line(channel_names[channel], fmt, ap);
	va_end(ap);
}
