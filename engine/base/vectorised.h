/*
 * For loops of our own: one body compiled for three instruction sets and chosen at load time by what the CPU
 * can do (levels, not models: a virtual machine's CPU model may be one that no compiler knows). The bodies
 * hold no OpenMP region: those would not inherit the target. Sanitizers are not ready yet when the choice is
 * made.
 */
#ifndef ENGINE_BASE_VECTORISED_H
#define ENGINE_BASE_VECTORISED_H

#if defined(__x86_64__) && !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__) && \
	!defined(__clang__)
#define VECTORISED __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#else
#define VECTORISED
#endif

#endif
