/* The loops that only the gradient of weights needs; included after winograd_loops.h by each instruction set. */

/* Ay: values of the polynomial y at the points. */
INLINE void transform_gradient(vec to[PATCH], const vec y[TILE])
{
	vec even_a = y[0] + (NEAR * NEAR) * y[2], odd_a = NEAR * (y[1] + (NEAR * NEAR) * y[3]);
	vec even_b = y[0] + (FAR * FAR) * y[2], odd_b = FAR * (y[1] + (FAR * FAR) * y[3]);

	to[0] = y[0];
	to[1] = even_a + odd_a;
	to[2] = even_a - odd_a;
	to[3] = even_b + odd_b;
	to[4] = even_b - odd_b;
	to[5] = y[3];
}

/* Gᵀu */
INLINE void transform_weights(vec to[3], const vec u[PATCH])
{
	vec even_a = NORM_A * (u[1] + u[2]), odd_a = (NORM_A * NEAR) * (u[1] - u[2]);
	vec even_b = NORM_B * (u[3] + u[4]), odd_b = (NORM_B * FAR) * (u[3] - u[4]);

	to[0] = u[0] * (1 / (NEAR * NEAR * FAR * FAR)) + even_a + even_b;
	to[1] = odd_a + odd_b;
	to[2] = (NEAR * NEAR) * even_a + (FAR * FAR) * even_b + u[5];
}

static TARGET void gradient_tile(float *m, size_t spot, const float *const p[TILE * TILE], int channels)
{
	for (int c = 0; c < channels; c += LANES) {
		vec half[PATCH][TILE];

#pragma GCC unroll 4
		for (int j = 0; j < TILE; j++) {
			vec y[TILE], t[PATCH];

#pragma GCC unroll 4
			for (int i = 0; i < TILE; i++)
				y[i] = load(p[i * TILE + j] + c);
			transform_gradient(t, y);
#pragma GCC unroll 6
			for (int i = 0; i < PATCH; i++)
				half[i][j] = t[i];
		}
#pragma GCC unroll 6
		for (int i = 0; i < PATCH; i++) {
			vec t[PATCH];

			transform_gradient(t, half[i]);
#pragma GCC unroll 6
			for (int j = 0; j < PATCH; j++)
				store(m + (size_t)(i * PATCH + j) * spot + c, t[j]);
		}
	}
}

/* TALL rows of inputs and `vectors` of outputs, over n tiles. */
#define TALL (WIDE == 4 ? 8 : 4)

INLINE void transposed_product(int vectors, float *sum, size_t sum_row, const float *v, size_t v_row,
			       const float *m, size_t m_row, int n, bool add)
{
	vec total[TALL][2];

#pragma GCC unroll 8
	for (int r = 0; r < TALL; r++)
#pragma GCC unroll 2
		for (int j = 0; j < vectors; j++)
			total[r][j] = (vec){0};
	for (int t = 0; t < n; t++) {
		vec y[2];

#pragma GCC unroll 2
		for (int j = 0; j < vectors; j++)
			y[j] = load(m + (size_t)t * m_row + j * LANES);
#pragma GCC unroll 8
		for (int r = 0; r < TALL; r++) {
			float x = v[(size_t)t * v_row + (size_t)r];

#pragma GCC unroll 2
			for (int j = 0; j < vectors; j++)
				total[r][j] += x * y[j];
		}
	}
#pragma GCC unroll 8
	for (int r = 0; r < TALL; r++)
#pragma GCC unroll 2
		for (int j = 0; j < vectors; j++) {
			float *to = sum + (size_t)r * sum_row + j * LANES;

			store(to, add ? load(to) + total[r][j] : total[r][j]);
		}
}

static TARGET void multiply_transposed(float *sum, size_t sum_row, const float *v, size_t v_row,
				       const float *m, size_t m_row, int n, int in, int width, bool add)
{
	for (int o = 0; o < width; o += 2 * LANES)
		for (int i = 0; i < in; i += TALL) {
			float *to = sum + (size_t)i * sum_row + o;

			if (o + LANES < width)
				transposed_product(2, to, sum_row, v + i, v_row, m + o, m_row, n, add);
			else
				transposed_product(1, to, sum_row, v + i, v_row, m + o, m_row, n, add);
		}
}

/* LANES inputs and LANES outputs. */
static TARGET void add_weights(float *dweight, int64_t ld, const float *sum, size_t sum_row, size_t spot,
			       int parts, size_t part)
{
	float of[LANES][9][LANES]; /* inputs, positions, outputs */

	for (int i = 0; i < LANES; i++) {
		const float *from = sum + (size_t)i * sum_row;
		vec half[3][PATCH];

		for (int j = 0; j < PATCH; j++) {
			vec u[PATCH], t[3];

			for (int q = 0; q < PATCH; q++) {
				const float *at = from + (size_t)(q * PATCH + j) * spot;

				u[q] = load(at);
				for (int k = 1; k < parts; k++)
					u[q] += load(at + (size_t)k * part);
			}
			transform_weights(t, u);
			for (int q = 0; q < 3; q++)
				half[q][j] = t[q];
		}
		for (int q = 0; q < 3; q++) {
			vec t[3];

			transform_weights(t, half[q]);
			for (int j = 0; j < 3; j++)
				store(of[i][q * 3 + j], t[j]);
		}
	}
	for (int o = 0; o < LANES; o++)
		for (int i = 0; i < LANES; i++)
			for (int q = 0; q < 9; q++)
				dweight[o * ld + i * 9 + q] += of[i][q][o];
}

const struct winograd_loops LOOPS = {.lanes = LANES,
				     .panel = WIDE * LANES,
				     .input = input,
				     .multiply = multiply,
				     .output = output,
				     .input_tile = input_tile,
				     .gradient_tile = gradient_tile,
				     .multiply_transposed = multiply_transposed,
				     .add_weights = add_weights};
