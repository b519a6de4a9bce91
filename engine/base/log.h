/*
 * One line a message to standard error, with time, process and level; trace channels can be switched
 * while the process runs (log_trace_set, from SIGUSR1 or an option).
 */
#ifndef ENGINE_BASE_LOG_H
#define ENGINE_BASE_LOG_H

enum log_channel { LOG_FS, LOG_SCHED, LOG_ENGINE, LOG_WIRE, LOG_CHANNELS };

void log_init(const char *process_name); /* borrowed; "daemon", "infer-0", … */
void log_error(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
void log_warn(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
void log_info(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
extern unsigned log_trace_mask; /* bit per channel; written with relaxed atomics */
void log_trace_set(unsigned mask);
#define log_trace(channel, ...)                                                             \
	do {                                                                                \
		if (__atomic_load_n(&log_trace_mask, __ATOMIC_RELAXED) & (1u << (channel))) \
			log_trace_line(channel, __VA_ARGS__);                               \
	} while (0)
void log_trace_line(enum log_channel channel, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

#endif
