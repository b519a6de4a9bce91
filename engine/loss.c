/* Losses on logits. Rows are few and short, so plain loops in double serve every backend. */
#include "engine/session.h"

#include <math.h>
#include <string.h>

/* log Σ exp(row·scale) */
static double log_sum_exp(const float *row, int classes, double scale)
{
	double max = row[0], sum = 0;

	for (int c = 1; c < classes; c++)
		max = row[c] > max ? row[c] : max;
	for (int c = 0; c < classes; c++)
		sum += exp((row[c] - max) * scale);
	return max * scale + log(sum);
}

void softmax_rows(float *logits, int n, int classes)
{
	for (int i = 0; i < n; i++) {
		float *row = logits + (size_t)i * (size_t)classes;
		double lse = log_sum_exp(row, classes, 1);

		for (int c = 0; c < classes; c++)
			row[c] = (float)exp(row[c] - lse);
	}
}

double loss_cross_entropy(const float *logits, const int *labels, int n, int classes, float smoothing,
			  float *dlogits)
{
	double loss = 0;

	for (int i = 0; i < n; i++) {
		const float *row = logits + (size_t)i * (size_t)classes;
		double lse = log_sum_exp(row, classes, 1);

		for (int c = 0; c < classes; c++) {
			double log_p = row[c] - lse;
			double target = (c == labels[i] ? 1 - smoothing : 0) + smoothing / classes;

			loss -= target * log_p;
			if (dlogits)
				dlogits[(size_t)i * (size_t)classes + (size_t)c] =
					(float)((exp(log_p) - target) / n);
		}
	}
	return loss / n;
}

double loss_distill(const float *logits, const float *teacher_logits, int n, int classes, float temperature,
		    float *dlogits)
{
	double loss = 0, t = temperature;

	for (int i = 0; i < n; i++) {
		const float *row = logits + (size_t)i * (size_t)classes;
		const float *teacher = teacher_logits + (size_t)i * (size_t)classes;
		double lse = log_sum_exp(row, classes, 1 / t),
		       teacher_lse = log_sum_exp(teacher, classes, 1 / t);

		for (int c = 0; c < classes; c++) {
			double log_p = row[c] / t - lse, target = exp(teacher[c] / t - teacher_lse);

			loss -= target * log_p * t * t;
			if (dlogits)
				dlogits[(size_t)i * (size_t)classes + (size_t)c] =
					(float)((exp(log_p) - target) * t / n);
		}
	}
	return loss / n;
}
