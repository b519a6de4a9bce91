#!/usr/bin/env python3
"""
What PyTorch exports today, imported: torchvision's nets (and a ResNet with GroupNorm) by both exporters in several operator sets, with
weights in the file and in one beside it, and for any batch. Each has to become a network of the engine's (not the interpreter's), its
outputs ONNX Runtime's within 1e-4 of the largest.

    pip install torch torchvision onnxscript onnx onnxruntime numpy
    BUILD=build/release tests/bench/onnx-imports.py [NAME ...]

Weights and running statistics are random. One model at a time lies below $TMPDIR.
"""
import contextlib, io, os, subprocess, sys, tempfile, warnings
import numpy, onnx, onnxruntime, torch, torchvision

LIMIT = 1e-4
BENCH = os.environ.get("BUILD", "build/release") + "/tests/bench-import"
models = torchvision.models
NETS = {
    "resnet18": (64, lambda: models.resnet18(num_classes=10)),
    "mobilenet_v2": (64, lambda: models.mobilenet_v2(num_classes=10)),
    "vgg11": (224, lambda: slim(models.vgg11(num_classes=10))),
    "resnet18-group": (64, lambda: models.resnet18(num_classes=10, norm_layer=lambda c: torch.nn.GroupNorm(8, c))),
}
BATCH = {"dynamic_shapes": ({0: torch.export.Dim("batch")},)}
EXPORTS = {  # None: the exporter's own operator set
    "default, two files": dict(dynamo=True),
    "default, one file": dict(dynamo=True, external_data=False),
    "default, any batch": dict(dynamo=True, external_data=False, **BATCH),
    "dynamo 18": dict(dynamo=True, external_data=False, opset_version=18, **BATCH),
    "dynamo 23": dict(dynamo=True, external_data=False, opset_version=23, **BATCH),
    "script 18": dict(dynamo=False, opset_version=18),
    "script 20": dict(dynamo=False, opset_version=20, input_names=["x"], output_names=["y"],
                      dynamic_axes={"x": {0: "n"}, "y": {0: "n"}}),
}


def slim(vgg):
    """VGG has most of its weights in two layers, which say nothing new."""
    vgg.classifier = torch.nn.Sequential(torch.nn.Linear(512 * 49, 64), torch.nn.ReLU(), torch.nn.Dropout(), torch.nn.Linear(64, 10))
    return vgg


def disturb(net):
    for m in net.modules():
        if isinstance(m, (torch.nn.BatchNorm2d, torch.nn.GroupNorm)):
            m.weight.data += 0.3 * torch.randn_like(m.weight)
            m.bias.data += 0.3 * torch.randn_like(m.bias)
        if isinstance(m, torch.nn.BatchNorm2d):
            m.running_mean += 0.3 * torch.randn_like(m.running_mean)
            m.running_var += 0.3 * torch.rand_like(m.running_var)
    return net.eval()


warnings.filterwarnings("ignore")
torch.manual_seed(1)
failed = False
print(f"torch {torch.__version__}, torchvision {torchvision.__version__}, onnx {onnx.__version__}, onnxruntime {onnxruntime.__version__}")
for name in sys.argv[1:] or NETS:
    side, make = NETS[name]
    net = disturb(make())
    for kind, options in EXPORTS.items():
        with tempfile.TemporaryDirectory() as folder:
            path = folder + "/model.onnx"
            one = "dynamic_shapes" not in options and "dynamic_axes" not in options
            with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
                torch.onnx.export(net, (torch.rand(1 if one else 2, 3, side, side),), path, verbose=False, **options)
            version = onnx.load(path, load_external_data=False).opset_import[0].version
            beside = os.path.exists(path + ".data")
            pixels = numpy.random.default_rng(1).integers(0, 256, (1 if one else 2, side, side, 3), dtype=numpy.uint8)
            pixels.tofile(folder + "/images")
            session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
            x = numpy.ascontiguousarray(pixels.transpose(0, 3, 1, 2)).astype(numpy.float32) / 255
            want, = session.run(None, {session.get_inputs()[0].name: x})
            ours = subprocess.run([BENCH, path, folder + "/images", folder + "/logits"], text=True,
                                  stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
            how, off = ours.stdout.strip(), float("nan")
            if ours.returncode == 0:
                got = numpy.fromfile(folder + "/logits", numpy.float32).reshape(want.shape)
                off = float(numpy.abs(want - got).max() / numpy.abs(want).max())
            good = how == "compiled" and off <= LIMIT and beside == (kind == "default, two files")
            failed |= not good
            print(f"{name:15} {kind:20} {version:2} {off:8.1e} {how}{'' if good else '  WRONG'}", flush=True)
sys.exit(failed)
