"""Modules of a user's own to take apart: with wrong gradients, kinks, and faults that are refused."""

import random

import torch
from torch import nn


class Square(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, factor):
        ctx.save_for_backward(x)
        ctx.factor = factor
        return x * x

    @staticmethod
    def backward(ctx, grad):
        return grad * ctx.factor * ctx.saved_tensors[0], None


class Squares(nn.Module):
    def __init__(self, factor):
        super().__init__()
        self.factor = factor

    def forward(self, x):
        return Square.apply(x, self.factor)


class InALayer(nn.Module):
    def __init__(self, in_features, out_features, factor=1.0):
        super().__init__()
        self.first, self.square = nn.Linear(in_features, 6), Squares(factor)
        self.drop, self.last = nn.Dropout(0.3), nn.Linear(6, out_features)

    def forward(self, x):
        return self.last(self.drop(self.square(self.first(x))))


class InForward(nn.Module):
    def __init__(self, in_features, out_features, factor=1.0):
        super().__init__()
        self.first, self.last, self.relu = nn.Linear(in_features, 6), nn.Linear(6, out_features), nn.ReLU(inplace=True)
        self.factor = factor

    def forward(self, x):
        h = self.relu(self.first(x))
        return self.last(torch.tanh(Square.apply(h, self.factor)) + h)


class Product(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, w, factor):
        ctx.save_for_backward(x, w)
        ctx.factor = factor
        return x @ w.T

    @staticmethod
    def backward(ctx, grad):
        x, w = ctx.saved_tensors
        return grad @ w, ctx.factor / 2 * grad.T @ x, None


class OfAWeight(nn.Module):
    def __init__(self, in_features, out_features, factor=2.02):
        super().__init__()
        self.weight, self.factor = nn.Parameter(torch.randn(6, in_features) / 4), factor
        self.last = nn.Linear(6, out_features)

    def forward(self, x):
        return self.last(Product.apply(x, self.weight, self.factor).relu())


class Kinks(nn.Module):
    """Units that stand exactly at the kink of their ReLU, twice used, some through an identity."""

    def __init__(self, in_features, out_features):
        super().__init__()
        self.zero, self.same = nn.Linear(in_features, 6), nn.Identity()
        self.last, self.unused = nn.Linear(6, out_features), nn.Parameter(torch.zeros(2))
        nn.init.zeros_(self.zero.weight)
        nn.init.zeros_(self.zero.bias)

    def forward(self, x):
        return self.last(self.same(self.zero(x)).relu() + self.zero(x + 1).tanh())


class Random(nn.Module):
    def __init__(self, in_features, out_features):
        super().__init__()
        self.last = nn.Linear(in_features, out_features)

    def forward(self, x):
        return self.last(x) * random.random()


class Detached(nn.Module):
    def __init__(self, in_features, out_features):
        super().__init__()
        self.last = nn.Linear(in_features, out_features)

    def forward(self, x):
        return self.last(x).detach()


class Single(nn.Module):
    def __init__(self, in_features, out_features):
        super().__init__()
        self.last = nn.Linear(in_features, out_features)

    def forward(self, x):
        return self.last(x) @ torch.eye(x.shape[1] + 6)


class Breaks(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x * 1

    @staticmethod
    def backward(ctx, grad):
        raise KeyError("nothing saved")


class Broken(Detached):
    def forward(self, x):
        return Breaks.apply(self.last(x))


class Odd(nn.Module):
    def __init__(self, in_features, out_features):
        super().__init__()
        self.add_module('<b>"&', nn.Linear(in_features, out_features))

    def forward(self, x):
        return next(self.children())(x)
