"""Names of the torchvision families, apart from PyTorch, so that tests are collected without it."""

FAMILIES = (
    "alexnet",
    "vgg11",
    "resnet18",
    "resnext50_32x4d",
    "wide_resnet50_2",
    "squeezenet1_0",
    "squeezenet1_1",
    "densenet121",
    "googlenet",
    "googlenet_transform",
    "inception_v3",
    "shufflenet_v2_x0_5",
    "mobilenet_v2",
    "mobilenet_v3_small",
    "mnasnet0_5",
    "efficientnet_b0",
    "regnet_y_400mf",
    "convnext_tiny",
)
# The older exporter writes other graphs for these: size arithmetic, Constant nodes, opset 17.
TORCHSCRIPT = ("resnet18", "shufflenet_v2_x0_5", "mobilenet_v2", "convnext_tiny")
