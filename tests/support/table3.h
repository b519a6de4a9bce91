/* The paper's Table 3 (X-ray; DESIGN section 6 has the optima) as a null executor's model. */
#ifndef TESTS_SUPPORT_TABLE3_H
#define TESTS_SUPPORT_TABLE3_H

#define TABLE3                                               \
	"{\"classes\":10,\"submodels\":["                    \
	"{\"slice\":1,\"accuracy\":0.7937,\"ms\":45.12},"    \
	"{\"slice\":0.75,\"accuracy\":0.7188,\"ms\":34.56}," \
	"{\"slice\":0.5,\"accuracy\":0.7094,\"ms\":22.72},"  \
	"{\"slice\":0.25,\"accuracy\":0.6512,\"ms\":15.68}]}"

#endif
