"""The parts of a run, by what the operators of the way back do."""

PARTS = {
    "forward": (),
    "convolutions": ("Conv", "Gemm", "MatMul", "FusedGemm", "FusedMatMul"),
    "strided convolutions": ("ConvTranspose",),
    "masks and slopes": ("HardSigmoid", "Mul", "Where", "Sigmoid", "Erf", "Exp", "Tanh"),
    "sums": ("Add", "Sum", "Sub", "ReduceSum", "ReduceMean", "GlobalAveragePool"),
    "pools": ("MaxPool", "MaxUnpool", "ScatterElements", "ConstantOfShape"),
    "moves": ("Split", "Concat", "Slice", "Reshape", "Transpose", "Resize", "Upsample", "Gather"),
    "layout": (),
    "other": (),
}
