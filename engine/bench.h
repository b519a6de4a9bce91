/*
 * The `inferfs bench` command: what the engine reaches on this device, slice by slice. On standard output,
 * CSV:
 *
 *	slice,precision,batch,ms_median,images_per_s,gflops,peak_rss
 *
 * ms_median: of one mini-batch; gflops: by model_flops (convolutions and linear layers; × 3 with --train,
 * for the two gradients); peak_rss: MiB, of the process so far. argv[0] is the command's name; returns the
 * exit status.
 */
#ifndef ENGINE_BENCH_H
#define ENGINE_BENCH_H

int bench_main(int argc, char **argv);

#endif
