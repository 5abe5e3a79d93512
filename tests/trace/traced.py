"""Functions to take apart: smooth, branching, cut off, in place, with a backward of their own, and refused."""

import math

import torch


def squared_sine(x):
    return torch.sin(x) ** 2


def mixed(x, y, z):
    a = torch.stack([x, y * z, 2 / x])
    b = a[:2].exp().sum() - (1 - y) ** 3
    return torch.norm(a) * b / torch.where(x > y, z, -z) + max(x, y) * abs(z)


def cosines(*p):
    p = torch.stack(p)
    return (torch.outer(p, p).sin() * torch.arange(len(p))).sum() + torch.logsumexp(p, 0)


def vector(x, y):
    return torch.stack([x * y, torch.sin(x), x**2 + y**3])


def doubled(x):
    while x.abs() < 100:
        x = x * 2
    return x if x > 120 else x**2


def linear(x, y):
    return x + y


def cut(x):
    y = x * x
    return y.detach() * x


def data(x):
    return x.data * x


def no_grad(x):
    with torch.no_grad():
        y = x * x
    return y * x


def python(x):
    return math.exp(x) * x


def no_way(x):
    return (x * x).detach()


def of_a_result(x):
    y = x.exp()
    y += 1
    return y


def of_an_input(x):
    y = x * 1
    z = y.sin()
    y.mul_(2)
    return z + y


def harmless(x):
    y = x * 3
    y += 1
    y.sin_()
    return y**2


def filled(x, y):
    z = torch.zeros(3, dtype=x.dtype)
    z[0] = x
    z[1] = x * y
    z[:2].mul_(y)
    return z.sum() ** 2


class Square(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        y = x.clone()
        return y * x

    @staticmethod
    def backward(ctx, grad):
        return 2 * grad * ctx.saved_tensors[0]


class Scaled(torch.autograd.Function):
    @staticmethod
    def forward(ctx, factor, x):
        ctx.factor = factor
        return x * factor

    @staticmethod
    def backward(ctx, grad):
        return None, grad * ctx.factor


class Once(Square):
    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad):
        return 2 * grad * ctx.saved_tensors[0]


class Numpy(Square):
    @staticmethod
    def backward(ctx, grad):
        return 2 * torch.as_tensor(grad.numpy()) * ctx.saved_tensors[0]


class Raises(Square):
    @staticmethod
    def backward(ctx, grad):
        raise KeyError("nothing saved")


class Wrong(Square):
    @staticmethod
    def backward(ctx, grad):
        return grad * ctx.saved_tensors[0]


def right(x):
    return Square.apply(Scaled.apply(3.0, x).sin()) * x


def wrong(x):
    return Wrong.apply(x.sin()) * x


def once(x):
    return Once.apply(x.sin()) * x


def with_numpy(x):
    return Numpy.apply(x * 1).sin()


def raises(x):
    return Raises.apply(x * 1)


def corner(x):
    return x.abs()


def long(x):
    for _ in range(100):
        x = x + x.sin() / 100
    return x


def drawn(x):
    return x * torch.rand(())


def several(x, y):
    return x, y


def one_row(x):
    return x.reshape(1)


def matrix(x):
    return torch.eye(2) * x


def whole(x):
    return torch.tensor(3)


def leaf(x):
    x += 1
    return x
