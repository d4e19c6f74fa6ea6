"""The other side of `deno task bench`: the same work in PyTorch, SciPy and nibabel.

Reads one JSON request per line, answers one JSON line {"seconds": ...}. Every request names a "work" and its shape; what
it needs is built once and kept, so that the timed part is the work alone. Losses, masks and heads follow the papers:
masked autoencoding, S3D by dense convolutions times the mask (as the public code does), CVA with an EMA teacher.
"""

import copy
import json
import os
import resource
import sys
import time

THREADS = int(os.environ.get("OMP_NUM_THREADS", "2"))
CELL, RATIO = 16, 0.75
FEATURES, BLOCKS = (32, 64, 128, 256, 320, 320), (1, 3, 4, 6, 6, 6)


def conv_work(r):
    """One 3x3x3 convolution in one direction."""
    import torch

    c, s = r["channels"], r["side"]
    dtype = torch.bfloat16 if r["dtype"] == "bf16" else torch.float32
    layout = torch.channels_last_3d if r["layout"] == "last" else torch.contiguous_format
    x = torch.randn(1, c, s, s, s).to(dtype).contiguous(memory_format=layout)
    g = torch.randn(1, c, s, s, s).to(dtype).contiguous(memory_format=layout)
    w = (torch.randn(c, c, 3, 3, 3) / (27 * c) ** 0.5).to(dtype).contiguous(memory_format=layout)
    if r["direction"] == "forward":
        return lambda: torch.nn.functional.conv3d(x, w, padding=1)
    want = [r["direction"] == "input", r["direction"] == "weight", False]
    return lambda: torch.ops.aten.convolution_backward(
        g, x, w, [c], [1] * 3, [1] * 3, [1] * 3, False, [0] * 3, 1, want
    )


def networks():
    """ResEnc-L as modules whose convolutions, norms and pools can be told which voxels exist."""
    import torch
    from torch import nn

    class Visible:
        maps = {}

        def times(self, x):
            m = self.maps.get(x.shape[-1])
            return x if m is None else x * m.to(x.dtype)

    class Conv(nn.Conv3d):
        def __init__(self, seen, a, b, k=3, stride=1, bias=True):
            super().__init__(a, b, k, stride, k // 2, bias=bias)
            self.seen = seen

        def forward(self, x):
            # PyTorch 2.15 returns garbage for the bf16 weight gradient on maps of edge 2: those run in f32.
            if min(x.shape[2:]) <= 2:
                with torch.autocast(x.device.type, enabled=False):
                    return self.seen.times(super().forward(x.float()))
            return self.seen.times(super().forward(x))

    class Norm(nn.Module):
        def __init__(self, seen, c):
            super().__init__()
            self.weight, self.bias, self.seen = nn.Parameter(torch.ones(c)), nn.Parameter(torch.zeros(c)), seen

        def forward(self, x):
            m = self.seen.maps.get(x.shape[-1])
            if m is None:
                return nn.functional.instance_norm(x, weight=self.weight, bias=self.bias)
            n = m[:1].sum()
            x = x.float()
            mean = x.sum((2, 3, 4), keepdim=True) / n
            d = (x - mean) * m
            scale = torch.rsqrt((d * d).sum((2, 3, 4), keepdim=True) / n + 1e-5)
            shape = (1, -1, 1, 1, 1)
            return (d * scale * self.weight.view(shape) + self.bias.view(shape)) * m

    class Block(nn.Module):
        def __init__(self, seen, a, b, stride):
            super().__init__()
            self.conv1, self.norm1 = Conv(seen, a, b, 3, stride), Norm(seen, b)
            self.conv2, self.norm2 = Conv(seen, b, b), Norm(seen, b)
            self.pool = nn.AvgPool3d(2) if stride == 2 else nn.Identity()
            self.skip = nn.Sequential(Conv(seen, a, b, 1, bias=False), Norm(seen, b)) if a != b else nn.Identity()

        def forward(self, x):
            y = nn.functional.leaky_relu(self.norm1(self.conv1(x)), 0.01)
            return nn.functional.leaky_relu(self.norm2(self.conv2(y)) + self.skip(self.pool(x)), 0.01)

    class Encoder(nn.Module):
        def __init__(self, seen):
            super().__init__()
            self.stem, self.norm = Conv(seen, 1, FEATURES[0]), Norm(seen, FEATURES[0])
            before = (FEATURES[0],) + FEATURES
            self.stages = nn.ModuleList(
                nn.Sequential(*(Block(seen, before[s] if b == 0 else c, c, 2 if s and b == 0 else 1) for b in range(n)))
                for s, (c, n) in enumerate(zip(FEATURES, BLOCKS))
            )

        def forward(self, x):
            x = nn.functional.leaky_relu(self.norm(self.stem(x)), 0.01)
            maps = []
            for stage in self.stages:
                x = stage(x)
                maps.append(x)
            return maps

    class Decoder(nn.Module):
        def __init__(self):
            super().__init__()
            nothing = Visible()
            pairs = list(zip(FEATURES[::-1], FEATURES[-2::-1]))
            self.up = nn.ModuleList(nn.ConvTranspose3d(a, b, 2, 2) for a, b in pairs)
            self.conv = nn.ModuleList(Conv(nothing, 2 * b, b) for _, b in pairs)
            self.norm = nn.ModuleList(Norm(nothing, b) for _, b in pairs)
            self.head = nn.Conv3d(FEATURES[0], 1, 1)

        def forward(self, maps):
            x = maps[-1]
            for up, conv, norm, skip in zip(self.up, self.conv, self.norm, maps[-2::-1]):
                x = nn.functional.leaky_relu(norm(conv(torch.cat((up(x), skip), 1))), 0.01)
            return self.head(x)

    return Visible, Encoder, Decoder, Norm


def step_work(r):
    """One training step: forward, loss, backward, clipping, optimizer (and the teacher's average)."""
    import torch
    from torch import nn
    from torch.nn import functional as F

    if r.get("arch") == "primus-m":
        return token_step_work(r)
    method, side, batch = r["method"], r["patch"], r["batch"]
    Visible, Encoder, Decoder, Norm = networks()
    torch.manual_seed(0)
    seen = Visible()
    net = nn.ModuleDict({"encoder": Encoder(seen), "decoder": Decoder()})
    views = batch * (2 if method == "cva" else 1)
    layout = torch.channels_last_3d if r["layout"] == "last" else torch.contiguous_format
    image = torch.randn(views, 1, side, side, side).contiguous(memory_format=layout)
    cells = side // CELL
    low = torch.autocast(r.get("device", "cpu"), torch.bfloat16, enabled=r["dtype"] == "bf16")

    def mask():
        order = torch.rand(views, cells**3).argsort(1)
        m = torch.ones(views, cells**3).scatter_(1, order[:, : int(RATIO * cells**3)], 0).view(views, 1, cells, cells, cells)
        return m

    def grown(m, edge):
        return F.interpolate(m, (edge,) * 3) if edge >= m.shape[-1] else torch.ones(views, 1, edge, edge, edge)

    if method == "s3d":
        net["tokens"] = nn.ParameterList(nn.Parameter(0.02 * torch.randn(1, c, 1, 1, 1)) for c in FEATURES)
        net["densify"] = nn.ModuleList(nn.Conv3d(c, c, 3, padding=1) if i else nn.Identity() for i, c in enumerate(FEATURES))
        plain = [Norm(seen, c).requires_grad_(False) for c in FEATURES]
    if method == "cva":
        def head(widths, last):
            parts = []
            for i, (a, b) in enumerate(zip(widths, widths[1:])):
                end = i == len(widths) - 2
                parts += [nn.Linear(a, b)]
                parts += [nn.BatchNorm1d(b, affine=False, track_running_stats=False)] if last or not end else []
                parts += [nn.SiLU()] if not end else []
            return nn.Sequential(*parts)

        net["projector"] = head((sum(FEATURES), 2048, 2048, 2048), True)
        net["predictor"] = head((2048, 512, 2048), False)
    net = net.to(memory_format=layout)
    teacher = copy.deepcopy(net).requires_grad_(False) if method == "cva" else None
    if r.get("compiled"):
        net["encoder"], net["decoder"] = torch.compile(net["encoder"]), torch.compile(net["decoder"])
    parameters = [p for p in net.parameters() if p.requires_grad]
    optimizer = torch.optim.SGD(parameters, 1e-2, momentum=0.99, nesterov=True, weight_decay=3e-5)

    def latents(model, maps, boxes):
        pooled = torch.cat([F.adaptive_avg_pool3d(m, 16) for m in maps], 1)
        rows = model["projector"](pooled.flatten(2).transpose(1, 2).reshape(-1, pooled.shape[1]))
        whole = model["projector"](torch.cat([m.mean((2, 3, 4)) for m in maps], 1))
        if model is net:
            rows, whole = net["predictor"](rows), net["predictor"](whole)
        dense = rows.float().view(views, 4096, 2048).transpose(1, 2).reshape(views, 2048, 16, 16, 16)
        u = (torch.arange(14) + 0.5) / 14
        z, y, x = (2 * (boxes[:, :3, None] + u * (boxes[:, 3:] - boxes[:, :3])[:, :, None]) - 1).unbind(1)
        shape = (views, 14, 14, 14)
        grid = torch.stack((x[:, None, None].expand(shape), y[:, None, :, None].expand(shape), z[:, :, None, None].expand(shape)), -1)
        return F.avg_pool3d(F.grid_sample(dense, grid, padding_mode="border", align_corners=False), 2), whole.float()

    def nt_xent(s, t):
        rows = F.normalize(torch.cat((t, s)))
        n, i = len(s), torch.arange(2 * len(s))
        logits = rows @ rows.T / 0.5
        drop = torch.eye(2 * n, dtype=torch.bool)
        drop[i, (i + n // 2) % (2 * n)] = drop[i, (i - n // 2) % (2 * n)] = True
        return F.cross_entropy(logits.masked_fill(drop, float("-inf")), (i + n) % (2 * n))

    def run():
        optimizer.zero_grad(set_to_none=True)
        m = mask()
        full = grown(m, side)
        hidden = 1 - full
        with low:
            if method == "s3d":
                seen.maps = {side >> i: grown(m, side >> i) for i in range(6)}
                maps = net["encoder"](image * full)
                filled = []
                for i, level in enumerate(maps):
                    here = seen.maps[level.shape[-1]]
                    v = plain[i](level)
                    filled.append(net["densify"][i](v * here + net["tokens"][i] * (1 - here)))
                seen.maps = {}
                out = net["decoder"](filled)
            else:
                maps = net["encoder"](image * full)
                out = net["decoder"](maps)
        if method != "cva":
            loss = ((out.float() - image) ** 2 * hidden).sum() / hidden.sum()
        else:
            loss = 5 * (F.huber_loss(out.float(), image, reduction="none") * hidden).sum() / hidden.sum()
            f = torch.full((batch, 3), 0.85)
            boxes = torch.cat((torch.cat((1 - f, torch.ones(batch, 3)), 1), torch.cat((torch.zeros(batch, 3), f), 1)))
            with torch.no_grad(), low:
                t_dense, t_whole = latents(teacher, teacher["encoder"](image), boxes)
            with low:
                s_dense, s_whole = latents(net, maps, boxes)
            cosine = (F.normalize(s_dense, dim=1) * F.normalize(t_dense, dim=1).roll(batch, 0)).sum(1).mean()
            loss = loss + 2 - 2 * cosine + 0.1 * nt_xent(s_whole, t_whole.roll(batch, 0))
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 12)
        optimizer.step()
        if teacher is not None:
            with torch.no_grad():
                torch._foreach_lerp_(list(teacher.parameters()), [p for p in net.parameters()], 0.005)

    return run


def token_network(side, width=864, heads=12, depth=16, token=8):
    """Primus-M for masked autoencoding: tokens of 8^3 voxels, pre-norm blocks with rotary positions and SwiGLU."""
    import torch
    from torch import nn
    from torch.nn import functional as F

    grid, hidden = side // token, width * 8 // 3
    bands = 10000.0 ** (-torch.arange(width // heads // 6) / (width // heads // 6))
    places = torch.cartesian_prod(*[torch.arange(grid).float()] * 3)
    angles = (places[:, :, None] * bands).flatten(1)

    class Block(nn.Module):
        def __init__(self, index, drop):
            super().__init__()
            self.drop = drop
            self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
            self.query, self.key = nn.Linear(width, width), nn.Linear(width, width, bias=False)
            self.value, self.project = nn.Linear(width, width), nn.Linear(width, width)
            self.gate, self.open, self.close = nn.Linear(width, hidden), nn.Linear(width, hidden), nn.Linear(hidden, width)
            self.inner, self.middle = nn.LayerNorm(width), nn.LayerNorm(hidden)
            self.gamma1, self.gamma2 = (nn.Parameter(torch.full((width,), 0.1)) for _ in range(2))

        def path(self, x):
            if self.drop == 0:
                return x
            return x * torch.empty(len(x), 1, 1, dtype=x.dtype).bernoulli_(1 - self.drop) / (1 - self.drop)

        def forward(self, x, cos, sin):
            n, t, _ = x.shape
            a = self.norm1(x)
            q, k, v = (f(a).view(n, t, heads, -1).transpose(1, 2) for f in (self.query, self.key, self.value))

            def turn(u):
                even, odd = u[..., ::2], u[..., 1::2]
                return torch.stack((even * cos - odd * sin, odd * cos + even * sin), -1).flatten(-2).to(v.dtype)

            seen = F.scaled_dot_product_attention(turn(q), turn(k), v).transpose(1, 2).reshape(n, t, width)
            x = x + self.path(self.gamma1 * self.project(self.inner(seen)))
            b = self.norm2(x)
            return x + self.path(self.gamma2 * self.close(self.middle(F.silu(self.gate(b)) * self.open(b))))

    class Trunk(nn.Module):
        def __init__(self, depth):
            super().__init__()
            self.table = nn.Parameter(0.02 * torch.randn(1, grid**3, width))
            self.blocks = nn.ModuleList(Block(i, 0.2 * i / (depth - 1)) for i in range(depth))
            self.norm = nn.LayerNorm(width)

        def forward(self, x, ids):
            turned = angles[ids][:, None]
            x = x + self.table[0][ids]
            for block in self.blocks:
                x = block(x, turned.cos(), turned.sin())
            return self.norm(x)

    class Channels(nn.LayerNorm):
        def forward(self, x):
            return super().forward(x.movedim(1, -1)).movedim(-1, 1)

    class Network(nn.Module):
        def __init__(self):
            super().__init__()
            self.embed = nn.Conv3d(1, width, token, token)
            self.encoder, self.decoder = Trunk(depth), Trunk(2)
            self.mask = nn.Parameter(1e-6 * torch.randn(1, 1, width))
            a, b = 112, 16
            self.up = nn.Sequential(
                nn.ConvTranspose3d(width, a, 2, 2), Channels(a, 1e-6), nn.GELU(),
                nn.ConvTranspose3d(a, b, 2, 2), Channels(b, 1e-6), nn.GELU(), nn.ConvTranspose3d(b, 1, 2, 2),
            )

        def forward(self, x, kept):
            tokens = self.embed(x).flatten(2).transpose(1, 2)
            wide = kept[:, :, None].expand(-1, -1, width)
            tokens = self.encoder(tokens.gather(1, wide), kept)
            full = self.mask.to(tokens.dtype).expand(len(x), grid**3, -1).scatter(1, wide, tokens)
            full = self.decoder(full, torch.arange(grid**3).expand(len(x), -1))
            return self.up(full.transpose(1, 2).reshape(len(x), width, grid, grid, grid))

    return Network()


def token_step_work(r):
    """One step of masked autoencoding on tokens: the hidden three quarters are dropped before the first block."""
    import torch
    from torch.nn import functional as F

    side, batch = r["patch"], r["batch"]
    torch.manual_seed(0)
    net = token_network(side)
    parameters = list(net.parameters())
    run_net = torch.compile(net) if r.get("compiled") else net
    image = torch.randn(batch, 1, side, side, side)
    if r["layout"] == "last":
        image, net = image.contiguous(memory_format=torch.channels_last_3d), net.to(memory_format=torch.channels_last_3d)
    optimizer = torch.optim.AdamW(parameters, 3e-4, (0.9, 0.98), weight_decay=5e-2, fused=True)
    grid = side // 8

    def run():
        optimizer.zero_grad(set_to_none=True)
        kept = torch.rand(batch, grid**3).argsort(1)[:, : grid**3 - int(RATIO * grid**3)]
        cells = torch.ones(batch, grid**3).scatter_(1, kept, 0).view(batch, 1, grid, grid, grid)
        hidden = F.interpolate(cells, (side,) * 3)
        with torch.autocast(r.get("device", "cpu"), torch.bfloat16, enabled=r["dtype"] == "bf16"):
            out = run_net(image, kept)
        (((out.float() - image) ** 2 * hidden).sum() / hidden.sum()).backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1)
        optimizer.step()

    run.parameters = sum(p.numel() for p in parameters)
    return run


def preprocess_work(r):
    """NIfTI file -> z-scored volume at 1 mm as half floats, one core."""
    import nibabel
    import numpy as np
    from scipy import ndimage

    def run():
        image = nibabel.as_closest_canonical(nibabel.load(r["file"]))
        v = np.asarray(image.dataobj, np.float32)
        inside = ndimage.binary_fill_holes(v != 0)
        box = ndimage.find_objects(inside.astype(np.uint8))[0]
        v = v[box]
        v = (v - v.mean()) / max(v.std(), 1e-8)
        spacing = np.linalg.norm(image.affine[:3, :3], axis=0)
        shape = np.round(np.array(v.shape) * spacing).astype(int)
        if tuple(shape) != v.shape:
            v = ndimage.zoom(v, shape / v.shape, order=3, mode="nearest", grid_mode=True)
        np.save(r["out"], v.astype(np.float16))

    return run


def augment_work(r):
    """Rotation and scale of a cube of edge `large` to one of edge `side`, cubic, one core."""
    import numpy as np
    from scipy import ndimage

    rng = np.random.default_rng(0)
    v = rng.normal(size=(r["large"],) * 3).astype(np.float32)
    matrix = np.array(r["matrix"])
    offset = np.array(r["offset"])
    return lambda: ndimage.affine_transform(v, matrix, offset, (r["side"],) * 3, order=3, mode="constant")


def rank_work(r):
    """Bootstrap over the cases of a rank table: methods x columns from values [methods, columns, cases]."""
    import numpy as np
    from scipy.stats import rankdata

    rng = np.random.default_rng(0)
    values = rng.normal(size=(r["methods"], r["columns"], r["cases"]))

    def run():
        for _ in range(r["replicates"]):
            picked = rng.integers(0, r["cases"], r["cases"])
            rankdata(-values[:, :, picked].mean(2), axis=0).mean(1)

    return run


WORK = {"conv": conv_work, "step": step_work, "preprocess": preprocess_work, "augment": augment_work, "rank": rank_work}


def versions():
    from importlib.metadata import PackageNotFoundError, version

    found = {"python": sys.version.split()[0]}
    for name in ("torch", "nvidia-cudnn-cu12", "nvidia-cudnn-cu13", "numpy", "scipy", "nibabel"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            pass
    return found


LEAST = 0.05  # seconds of one timing: short calls are repeated, as ours are


def main():
    made, short = {}, set()
    for line in sys.stdin:
        request = json.loads(line)
        try:
            if request["work"] == "versions":
                answer = {"versions": versions()}
            else:
                gpu = request.get("device") == "cuda"
                if "device" in request:
                    import torch

                    torch.set_default_device(request["device"])
                    torch.backends.cudnn.benchmark = True
                key = json.dumps(request, sort_keys=True)
                if key not in made:
                    made.clear()  # one case at a time: its memory is its own
                    made[key] = WORK[request["work"]](request)
                if request["work"] in ("conv", "step"):
                    import torch

                    torch.set_num_threads(THREADS)
                queued = 10 if gpu and request["work"] == "conv" else 1  # as ours are
                if key in short and not gpu:
                    made[key]()  # cores that have slept are slow at first
                begin, calls, passed = time.perf_counter(), 0, 0
                while passed < LEAST:
                    for _ in range(queued):
                        made[key]()
                    if gpu:
                        torch.cuda.synchronize()
                    passed, calls = time.perf_counter() - begin, calls + queued
                if passed / calls < LEAST:
                    short.add(key)
                answer = {"seconds": passed / calls}
                answer["parameters"] = getattr(made[key], "parameters", None)
                answer["peak_bytes"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
                if gpu:
                    answer["peak_bytes"] = torch.cuda.max_memory_allocated()
        except Exception as error:  # the caller prints it and goes on
            answer = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(answer), flush=True)


main()
