#include "engine/base/json.h"

#include <math.h>
#include <stdbool.h>
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

/* value as text of at most `size`; false when it is too large, or no number. */
static bool decimal(char *text, size_t size, double value, int decimals)
{
	static const long long scale[] = {1,      10,      100,      1000,      10000,
					  100000, 1000000, 10000000, 100000000, 1000000000};
	long long all, fraction;
	int n;

	if (!(fabs(value) < 9e8))
		return false;
	all = llround(value * (double)scale[decimals]);
	fraction = llabs(all) % scale[decimals];
	n = snprintf(text, size, "%s%lld", all < 0 ? "-" : "", llabs(all) / scale[decimals]);
	if (fraction) {
		n += snprintf(text + n, size - (size_t)n, ".%0*lld", decimals, fraction);
		while (text[n - 1] == '0')
			text[--n] = '\0';
	}
	return true;
}

void json_add_decimal(cJSON *json, const char *key, double value, int decimals)
{
	char text[40];

	if (decimal(text, sizeof(text), value, decimals))
		cJSON_AddRawToObject(json, key, text);
	else
		cJSON_AddNumberToObject(json, key, value); /* null when it is no number */
}

void json_add_decimals(cJSON *json, const char *key, const float *values, int n, int decimals)
{
	cJSON *array = cJSON_AddArrayToObject(json, key);
	char text[40];

	for (int i = 0; i < n; i++)
		cJSON_AddItemToArray(array, decimal(text, sizeof(text), (double)values[i], decimals)
						    ? cJSON_CreateRaw(text)
						    : cJSON_CreateNumber((double)values[i]));
}
