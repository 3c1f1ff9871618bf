"""The network of `small.py` in torch, with every structure of the real networks at width 3 to 8.

The order is stem, ResNet bottleneck, inception block, two inception-resnet blocks, reduction,
dense layers, transition, head. No layer is an identity, and two branches have equal shapes.
"""

import torch
from torch import nn
from torch.nn.functional import relu

# Of the first 3000 seeds, the one with no dead feature and the largest effect of each weight.
SEED = 893
SIZE = 96
CLASSES = 5
# The epsilon of the inception networks, and of all others.
INCEPTION_EPS, EPS = 1e-3, 1e-5


class Unit(nn.Module):
    """Convolution, BatchNorm, ReLU."""

    def __init__(self, ins, outs, kernel, eps=INCEPTION_EPS, stride=1, padding=None):
        super().__init__()
        kernel = kernel if isinstance(kernel, tuple) else (kernel, kernel)
        same = tuple(side // 2 for side in kernel)
        padding = same if padding is None else padding
        self.conv = nn.Conv2d(ins, outs, kernel, stride, padding, bias=False)
        self.bn = nn.BatchNorm2d(outs, eps)
        self.has_relu = True

    def forward(self, x):
        x = self.bn(self.conv(x))
        return relu(x) if self.has_relu else x


class Bottleneck(nn.Module):
    """ResNet block with a stride (on the first convolution, as published) and a projection."""

    def __init__(self):
        super().__init__()
        self.a = Unit(6, 4, 1, EPS, stride=2)
        self.b = Unit(4, 4, 3, EPS)
        self.c = Unit(4, 8, 1, EPS)
        self.short = Unit(6, 8, 1, EPS, stride=2)
        self.c.has_relu = self.short.has_relu = False

    def forward(self, x):
        return relu(self.c(self.b(self.a(x))) + self.short(x))


class Inception(nn.Module):
    """Four branches; the last starts with average pooling that does not count the padding."""

    def __init__(self):
        super().__init__()
        self.a = Unit(8, 4, 1)
        self.b = nn.Sequential(Unit(8, 3, 1), Unit(3, 3, 5))
        self.c = nn.Sequential(Unit(8, 3, 1), Unit(3, 3, 3), Unit(3, 3, 3))
        pool = nn.AvgPool2d(3, stride=1, padding=1, count_include_pad=False)
        self.d = nn.Sequential(pool, Unit(8, 4, 1))

    def forward(self, x):
        return torch.cat([self.a(x), self.b(x), self.c(x), self.d(x)], 1)


class Residual(nn.Module):
    """Branches, a convolution with a bias, a scale, and a sum."""

    def __init__(self, branches, width, scale, has_relu):
        super().__init__()
        self.branches = nn.ModuleList(branches)
        self.up = nn.Conv2d(width, 14, 1)
        self.scale = scale
        self.has_relu = has_relu

    def forward(self, x):
        y = torch.cat([branch(x) for branch in self.branches], 1)
        y = self.up(y) * self.scale + x
        return relu(y) if self.has_relu else y


class Reduction(nn.Module):
    """A strided convolution and max pooling, side by side and without padding."""

    def __init__(self):
        super().__init__()
        self.a = Unit(14, 4, 3, stride=2, padding=0)
        self.pool = nn.MaxPool2d(3, stride=2)

    def forward(self, x):
        return torch.cat([self.a(x), self.pool(x)], 1)


class DenseLayer(nn.Module):
    """BatchNorm and ReLU before each convolution; the input is the list of all previous maps."""

    def __init__(self, ins):
        super().__init__()
        self.bn1 = nn.BatchNorm2d(ins, EPS)
        self.conv1 = nn.Conv2d(ins, 4, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(4, EPS)
        self.conv2 = nn.Conv2d(4, 4, 3, padding=1, bias=False)

    def forward(self, maps):
        x = self.conv1(relu(self.bn1(torch.cat(maps, 1))))
        return self.conv2(relu(self.bn2(x)))


class Small(nn.Module):
    """The network. `end` is the last stage: `linear`, `matmul`, `pooled` or `map`."""

    def __init__(self, end="linear"):
        super().__init__()
        self.end = end
        self.stem = Unit(3, 6, 7, EPS, stride=2)
        self.pool = nn.MaxPool2d(3, stride=2, padding=1)
        self.bottleneck = Bottleneck()
        self.inception = Inception()

        def twin():
            return nn.Sequential(Unit(14, 3, 1), Unit(3, 3, 3))

        self.res1 = Residual([Unit(14, 3, 1), twin(), twin()], 9, 0.17, True)
        tall = nn.Sequential(Unit(14, 3, 1), Unit(3, 3, (1, 7)), Unit(3, 3, (7, 1)))
        self.res2 = Residual([Unit(14, 3, 1), tall], 6, 1.0, False)
        self.reduction = Reduction()
        self.dense = nn.ModuleList([DenseLayer(18), DenseLayer(22)])
        self.bn3 = nn.BatchNorm2d(26, EPS)
        self.conv3 = nn.Conv2d(26, 8, 1, bias=False)
        self.shrink = nn.AvgPool2d(2)
        self.bn4 = nn.BatchNorm2d(8, EPS)
        self.average = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(8, CLASSES)

    def feature_map(self, x):
        """Returns the last feature map [N,8,h,w], which the head averages."""
        x = self.inception(self.bottleneck(self.pool(self.stem(x))))
        maps = [self.reduction(self.res2(self.res1(x)))]
        for layer in self.dense:
            maps.append(layer(maps))
        x = self.shrink(self.conv3(relu(self.bn3(torch.cat(maps, 1)))))
        return relu(self.bn4(x))

    def forward(self, x):
        x = self.feature_map(x)
        if self.end == "map":
            return x
        if self.end == "matmul":
            return torch.matmul(x.mean([2, 3]), self.fc.weight.t()) + self.fc.bias
        x = torch.flatten(self.average(x), 1)
        return x if self.end == "pooled" else self.fc(x)


def make(end="linear"):
    """Returns the network in eval mode with the weights of SEED, identical for each `end`."""
    model = Small(end)
    rng = torch.Generator().manual_seed(SEED)
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, (nn.Conv2d, nn.Linear)):
                fan_in = module.weight[0].numel()
                module.weight.normal_(0.0, (2.0 / fan_in) ** 0.5, generator=rng)
                if module.bias is not None:
                    module.bias.normal_(0.0, 0.3, generator=rng)
            elif isinstance(module, nn.BatchNorm2d):
                if module.eps == INCEPTION_EPS:
                    # Keras has no scale here. Equal tensors: the legacy exporter shares them.
                    module.weight.fill_(1.0)
                else:
                    module.weight.uniform_(0.5, 1.5, generator=rng)
                # Above zero on average, so that few channels are dead after their ReLU.
                module.bias.normal_(0.4, 0.3, generator=rng)
                module.running_mean.normal_(0.0, 0.3, generator=rng)
                module.running_var.uniform_(0.3, 1.5, generator=rng)
    return model.eval()
