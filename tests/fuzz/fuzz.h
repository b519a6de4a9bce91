/*
 * What every file of this directory is: one target, LLVMFuzzerTestOneInput over bytes that come from
 * somewhere hostile. With -DFUZZ=ON (clang) each becomes the libFuzzer program tests/fuzz-NAME:
 *
 *	cmake -B build/fuzz -G Ninja -DFUZZ=ON -DCMAKE_C_COMPILER=clang && ninja -C build/fuzz fuzz-wire
 *	build/fuzz/tests/fuzz-wire -max_total_time=600 build/fuzz/wire tests/fuzz/corpus/wire
 *
 * Otherwise replay.c runs the same function over tests/fuzz/corpus/NAME/, and that is ctest's fuzz-NAME. An
 * input that found something goes into the corpus with its mend.
 */
#ifndef TESTS_FUZZ_FUZZ_H
#define TESTS_FUZZ_FUZZ_H

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* A property that must hold; also without assertions. */
#define MUST(cond)                                                                               \
	do {                                                                                     \
		if (!(cond)) {                                                                   \
			fprintf(stderr, "%s:%d: %s does not hold\n", __FILE__, __LINE__, #cond); \
			abort();                                                                 \
		}                                                                                \
	} while (0)

#endif
