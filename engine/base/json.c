#include "engine/base/json.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

void json_print(struct buf *ret, const cJSON *json)
{
	char *text = cJSON_Print(json);

	if (!text) {
		ret->failed = true;
		return;
	}
	buf_adds(ret, text);
	buf_adds(ret, "\n");
	cJSON_free(text);
}

void json_add_decimal(cJSON *json, const char *key, double value, int decimals)
{
	static const long long scale[] = {1,      10,      100,      1000,      10000,
					  100000, 1000000, 10000000, 100000000, 1000000000};
	char text[40];
	long long all, fraction;
	int n;

	if (!(fabs(value) < 9e8)) {
		cJSON_AddNumberToObject(json, key, value); /* null when it is no number */
		return;
	}
	all = llround(value * (double)scale[decimals]);
	fraction = llabs(all) % scale[decimals];
	n = snprintf(text, sizeof(text), "%s%lld", all < 0 ? "-" : "", llabs(all) / scale[decimals]);
	if (fraction) {
		n += snprintf(text + n, sizeof(text) - (size_t)n, ".%0*lld", decimals, fraction);
		while (text[n - 1] == '0')
			text[--n] = '\0';
	}
	cJSON_AddRawToObject(json, key, text);
}
