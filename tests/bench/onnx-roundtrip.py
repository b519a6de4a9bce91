#!/usr/bin/env python3
"""
Exported slices in ONNX Runtime against our engine: for each family and slice the largest difference of logits, relative to the
largest of them. Fails beyond 1e-4, and where onnx.checker finds anything wrong.

    pip install onnxruntime onnx numpy
    BUILD=build/release tests/bench/onnx-roundtrip.py [NAME ...]

Weights, norms and running statistics are random (bench-export); the largest takes 1.1 GB below $TMPDIR, one at a time.
"""
import glob, os, re, subprocess, sys, tempfile
import numpy, onnx, onnxruntime

LIMIT = 1e-4
BENCH = os.environ.get("BUILD", "build/release") + "/tests/bench-export"
names = sys.argv[1:] or subprocess.run([BENCH], check=True, stdout=subprocess.PIPE, text=True).stdout.split()
failed = False

print(f"onnxruntime {onnxruntime.__version__}, onnx {onnx.__version__}")
for name in names:
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run([BENCH, name, folder], check=True)
        for path in sorted(glob.glob(folder + "/*.onnx")):
            onnx.checker.check_model(path, full_check=True)
            session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
            images, = session.get_inputs()
            logits, = session.get_outputs()
            x = numpy.fromfile(folder + "/images", numpy.float32).reshape([-1] + images.shape[1:])
            want = numpy.fromfile(path.replace(".onnx", ".logits"), numpy.float32).reshape([-1] + logits.shape[1:])
            got, = session.run([logits.name], {images.name: x})
            one, = session.run([logits.name], {images.name: x[:1]})
            off = float(numpy.abs(want - got).max() / numpy.abs(want).max())
            off = max(off, float(numpy.abs(want[:1] - one).max() / numpy.abs(want).max()))
            good = off <= LIMIT and got.shape == want.shape and numpy.abs(want[0] - want[1]).max() > 0
            failed |= not good
            rate = re.search("slice-(.*).onnx", path).group(1)
            size = os.path.getsize(path) / 2**20
            print(f"{name:26} {rate} {off:8.1e} {size:7.1f} MiB {'' if good else '  WRONG'}", flush=True)
sys.exit(failed)
