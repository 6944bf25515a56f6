"""A pretend GPU: a CPU that refuses what a GPU refuses, so that whole scripts can be tried.

Tensors that go to `cuda` become `Pretend`: they say that they are on cuda:0, hold a CPU tensor, and
every operator on them is made by the CPU, unless it is given a tensor of the CPU too. PyTorch's own
code takes them for CPU tensors, so autocast is the CPU's, and nothing here depends on a build.
"""

import functools
import importlib

import torch
from torch import nn
from torch.utils._pytree import tree_flatten, tree_map, tree_unflatten

GPU = torch.device("cuda", 0)
COPIES = {"copy_", "_to_copy"}
"""What may be given tensors of both devices."""

INDEXING = {"index", "index_put", "index_put_", "_index_put_impl_", "_unsafe_index"}
"""What may be given indices of the CPU, if it is on the GPU itself."""

FACTORIES = (
    *("arange", "empty", "eye", "full", "linspace", "ones", "rand", "randint", "randn", "randperm"),
    *("tensor", "as_tensor", "zeros"),
)
SILENT = ("set_device", "set_rng_state_all", "manual_seed_all", "reset_peak_memory_stats")
LIKE = ("empty_like", "full_like", "ones_like", "rand_like", "randn_like", "zeros_like")


class Pretend(torch.Tensor):
    """A tensor that says it is on a GPU."""

    __torch_function__ = torch._C._disabled_torch_function_impl
    device, is_cuda, is_cpu = GPU, True, False

    @staticmethod
    def __new__(cls, held):
        return torch.Tensor._make_wrapper_subclass(
            cls, held.size(), held.stride(), held.storage_offset(), dtype=held.dtype, device="cpu"
        )

    def __init__(self, held):
        self.held = held

    def __repr__(self):
        return f"{self.held!r} on {GPU}"

    def get_device(self):
        return 0

    def tolist(self):
        return self.held.tolist()

    def numpy(self, *, force=False):
        raise TypeError(f"can't convert {GPU} device type tensor to numpy")

    def __array__(self, *_):
        return self.numpy()

    def pin_memory(self, *_):
        raise RuntimeError("only dense CPU tensors can be pinned")

    def __reduce_ex__(self, protocol):
        return self.held.__reduce_ex__(protocol)

    def __deepcopy__(self, memo):
        new = Pretend(self.held.detach().clone()).requires_grad_(self.requires_grad)
        new.__dict__.update({k: v for k, v in self.__dict__.items() if k != "held"})
        return memo.setdefault(id(self), new)

    @classmethod
    def __torch_dispatch__(cls, operator, _, args=(), kwargs=None):
        flat, spec = tree_flatten((args, kwargs or {}))
        given = [x for x in flat if isinstance(x, torch.Tensor)]
        elsewhere = [x for x in given if not isinstance(x, Pretend)]
        name = operator._schema.name.split("::")[1]
        if name in INDEXING:
            strict = [x for x in (args[0], *args[2:3]) if not isinstance(x, Pretend)]
        else:
            strict = [] if name in COPIES else elsewhere
        if any(x.ndim for x in strict):
            sizes = ", ".join(f"{tuple(x.shape)} on {x.device}" for x in given)
            raise RuntimeError(
                f"Expected all tensors to be on the same device: {operator}, {sizes}"
            )
        args, kwargs = tree_unflatten([getattr(x, "held", x) for x in flat], spec)
        results = operator(*args, **kwargs)
        same = {id(x.held): x for x in given if isinstance(x, Pretend)}
        same |= {id(x): x for x in elsewhere}

        def told(x):
            return same.get(id(x)) if id(x) in same else Pretend(x)

        return tree_map(lambda x: told(x) if isinstance(x, torch.Tensor) else x, results)


class _Move(torch.autograd.Function):
    """To the GPU or back, and the gradient the other way."""

    @staticmethod
    def forward(ctx, x, to_gpu):
        ctx.to_gpu = to_gpu
        return Pretend(x.clone()) if to_gpu else x.held.clone()

    @staticmethod
    def backward(ctx, grad):
        return _Move.apply(grad, not ctx.to_gpu), None


class Copies:
    """Copies to the CPU that nobody waited for yet: until then what they are to fill is garbage."""

    def __init__(self):
        self.waiting = []

    def begin(self, held):
        result = torch.full_like(held, 77)
        self.waiting.append((result, held))
        return result

    def finish(self):
        for result, held in self.waiting:
            result.copy_(held)
        self.waiting.clear()


class Event:
    """As torch.cuda.Event: it waits for what was begun when it was recorded."""

    def __init__(self, copies):
        self.copies, self.known = copies, []

    def record(self, _stream):
        self.known = list(self.copies.waiting)

    def synchronize(self):
        for result, held in self.known:
            result.copy_(held)


def on_gpu(device):
    return device is not None and torch.device(device).type == "cuda"


def _to(real, copies, x, *args, **kwargs):
    """Tensor.to, of which PyTorch's does what has to do with dtypes and memory formats."""
    args = list(args)
    if args and isinstance(args[0], torch.Tensor):
        args[:1] = [args[0].device, args[0].dtype]
    device = kwargs.pop("device", None)
    if args and (args[0] is None or isinstance(args[0], (str, int, torch.device))):
        device = args.pop(0)
    if args and not isinstance(args[0], torch.dtype):
        kwargs["non_blocking"] = args.pop(0)
    late = kwargs.pop("non_blocking", None)
    if late and isinstance(x, Pretend) and device is not None and not on_gpu(device):
        x = copies.begin(x.held.detach())
    if device is not None and on_gpu(device) != isinstance(x, Pretend):
        x = _Move.apply(x, on_gpu(device))
        kwargs.pop("copy", None)
    dtype = args[0] if args else kwargs.pop("dtype", None)
    return real(x, dtype or x.dtype, **{k: v for k, v in kwargs.items() if v is not None})


def _made(real, like, *args, **kwargs):
    """A factory's tensor, on the device that it is asked for."""
    if not like or "device" in kwargs:
        device = kwargs.pop("device", None)
        if like and not on_gpu(device) and isinstance(args[0], Pretend):
            args = (args[0].held, *args[1:])
        made = real(*args, **kwargs)
        return made.to(GPU) if on_gpu(device) else made
    return real(*args, **kwargs)


class _Autocast(torch.autocast):
    def __init__(self, device_type, *args, **kwargs):
        super().__init__("cpu" if device_type == "cuda" else device_type, *args, **kwargs)


def _apply(real, module, *args, **kwargs):
    """Module.to keeps its Parameters, as it does on a GPU."""
    future = torch.__future__
    before = future.get_swap_module_params_on_conversion()
    future.set_swap_module_params_on_conversion(True)
    try:
        return real(module, *args, **kwargs)
    finally:
        future.set_swap_module_params_on_conversion(before)


def _says(value):
    """Another function each time: PyTorch's compiler keeps a table of them."""
    return lambda *_, **__: value


def pretend(patch):
    """Until `patch` (pytest's monkeypatch) is undone, this machine has a GPU."""
    real, copies = torch.Tensor.to, Copies()
    for place, values in {
        torch: {"autocast": _Autocast},
        torch.Tensor: {
            "to": lambda x, *args, **kwargs: _to(real, copies, x, *args, **kwargs),
            "cuda": lambda x, *_, **__: x.to(GPU),
            "cpu": lambda x, *_, **__: x.to("cpu"),
            "pin_memory": lambda x, *_: x.clone(),
        },
        nn.Module: {"_apply": functools.partialmethod(functools.partial(_apply, nn.Module._apply))},
        torch.cuda: {
            **{name: _says(None) for name in SILENT},
            "synchronize": copies.finish,
            "Event": functools.partial(Event, copies),
            "current_stream": _says(None),
            "is_available": _says(True),
            "device_count": _says(1),
            "current_device": _says(0),
            "is_current_stream_capturing": _says(False),
            "get_device_name": _says("pretend"),
            "max_memory_allocated": _says(2**30),
            "get_rng_state_all": lambda: [torch.zeros(16, dtype=torch.uint8)],
        },
        # Else loaders pin memory and optimisers ask for streams, which there are not.
        torch.accelerator: {"is_available": _says(False)},
    }.items():
        for name, value in values.items():
            patch.setattr(place, name, value)
    for name in (*FACTORIES, *LIKE):
        made = functools.partial(_made, getattr(torch, name), name in LIKE)
        patch.setattr(torch, name, made)
    optimizer = importlib.import_module("torch.optim.optimizer")
    patch.setattr(
        optimizer, "_foreach_supported_types", [*optimizer._foreach_supported_types, Pretend]
    )
