"""The floor of a whole-image schedule: what the tensors of an ONNX graph take at once, by sizes and lifetimes alone.

A tensor is held from the node that makes it to the last that reads it; the picture is the caller's and stays
throughout, and so does the result once it is there. Constants are counted apart. A kernel's scratch memory, an
allocator's rounding and the runtime itself come on top. The schedules, and what each assumes:

    stored      the file's order; every output is a tensor of its own
    in-place    the file's order, but some outputs take no memory of their own:
                an elementwise node's is written over an input of its shape and type, where no later node reads that;
                a view's (Reshape and the like) is another name for its input;
                a Concat's has its inputs for parts, where no later node reads those: they were written in their places,
                and the rest of its block, untouched until it is written, is not resident before
    best order  in-place, in an order that takes least: by an exact search, see `_best`

In each every node runs once, and whole: to compute a map again, to fuse nodes or to cut them into strips is another
schedule, and may take less.
"""

import heapq
from dataclasses import dataclass

import pandas as pd

from udnet import Error
from udnet.network import graphs
from udnet.system.memory import MIB

SCHEDULES = ("stored", "in-place", "best order")
ELEMENTWISE = {
    *("Abs", "Add", "Clip", "Div", "Elu", "Erf", "Exp", "HardSigmoid", "LeakyRelu", "Log", "Max", "Min", "Mul", "Neg"),
    *("PRelu", "Pow", "Reciprocal", "Relu", "Sigmoid", "Softplus", "Sqrt", "Sub", "Sum", "Tanh"),
}
VIEWS = {"Flatten", "Identity", "Reshape", "Squeeze", "Unsqueeze"}
FAR = (1 << 20, 1 << 21)  # sides of the pictures of `per_pixel`: of one so large a border is a millionth


@dataclass(frozen=True, eq=False)
class Peak:
    """The most that a schedule holds at once, constants apart, and how that comes about."""

    bytes: int
    node: str  # the first that reaches it
    tensors: list[graphs.Tensor]  # held while that node runs, each with the bytes that are held for it
    weights: int  # bytes of the constants, held throughout
    profile: pd.DataFrame  # a row a node, in order: operator, weight (the first constant it reads), bytes then held
    searched: int  # sets of nodes that the search for the best order went through


def peak(path, height, width, schedule="stored"):
    """The `Peak` of an ONNX file's graph for one picture, under one of `SCHEDULES`.

    `path`: as `graphs.read` takes it.
    """
    if schedule not in SCHEDULES:
        raise Error(f"no schedule {schedule!r}: choose from {', '.join(SCHEDULES)}")
    graph = graphs.read(path, height, width)
    lives, done, held = _Lives(graph), 0, []
    order, searched = _best(lives) if schedule == "best order" else (range(len(graph.nodes)), 0)
    for place in order:
        held.append(lives.held(done, place, reuse=schedule != "stored"))
        done |= 1 << place
    rows = [(*graph.nodes[place][:3], sum(sizes.values())) for place, sizes in zip(order, held, strict=True)]
    profile = pd.DataFrame(rows, columns=["node", "operator", "weight", "bytes"]).set_index("node")
    top = int(profile.bytes.argmax())
    tensors = [graph.tensors[name]._replace(bytes=size) for name, size in held[top].items()]
    return Peak(rows[top][3], rows[top][0], tensors, graph.weights, profile, searched)


def per_pixel(path, schedule="stored"):
    """Bytes of the peak that a pixel more adds, for pictures so large that their borders do not count."""
    less, more = (peak(path, side, side, schedule).bytes for side in FAR)
    return (more - less) / (FAR[1] ** 2 - FAR[0] ** 2)


def table(path, height, width):
    """The schedules, a row each: the peak, bytes a pixel, at which node, and the tensors above 1% of the peak there."""
    rows = {}
    for schedule in SCHEDULES:
        top = peak(path, height, width, schedule)
        large = [f"{one.name} {one.bytes / MIB:,.1f}" for one in top.tensors if one.bytes > top.bytes / 100]
        rows[schedule] = (round(top.bytes / MIB, 1), round(per_pixel(path, schedule)), top.node, ", ".join(large))
    columns = ["peak, MiB", "bytes a pixel", "at node", "held there, MiB"]
    return pd.DataFrame.from_dict(rows, orient="index", columns=columns).rename_axis("schedule")


def _best(lives):
    """An order whose peak no other order goes below, and how many sets of nodes were gone through to know it.

    What is held once some nodes have run depends on which have, not on their order. So an order is a path through the
    sets of nodes that can have run, and this is Dijkstra's search, with the highest step of a path for its length. Of
    equal paths the one furthest on goes first.
    """
    paths, last, done = [(0, 0, 0, 0)], {}, 0  # highest step, minus the length, nodes, last node
    while done.bit_count() < len(lives.nodes):
        highest, _, done, before = heapq.heappop(paths)
        if done in last:
            continue
        last[done] = before
        for place, needs in enumerate(lives.needs):
            if not (done >> place & 1 or needs & ~done):
                high = max(highest, sum(lives.held(done, place, reuse=True).values()))
                heapq.heappush(paths, (high, ~done.bit_count(), done | 1 << place, place))
    order = []
    while done:
        order.append(last[done])
        done ^= 1 << last[done]
    return order[::-1], len(last)


class _Lives:
    """Which tensors are held, once which nodes have run. A set of nodes is a number, a bit each."""

    def __init__(self, graph):
        self.nodes, self.tensors, self.ends = graph.nodes, graph.tensors, graph.ends
        self.made = dict.fromkeys(graph.tensors, 0)  # by which node; none makes the picture
        self.read = dict.fromkeys(graph.tensors, 0)  # by which nodes
        self.roots = {name: name for name in graph.tensors}  # of a view: what it is a view of
        self.needs = []  # by node: those that have to run before
        for place, node in enumerate(graph.nodes):
            for name in node.outputs:
                self.made[name] = 1 << place
                if node.operator in VIEWS and node.inputs:
                    self.roots[name] = self.roots[node.inputs[0]]
            for name in node.inputs:
                self.read[name] |= 1 << place
            self.needs.append(sum({self.made[name] for name in node.inputs}))

    def after(self, done):
        """The tensors that are held once these nodes have run."""
        made = (name for name, node in self.made.items() if not node & ~done)
        return [name for name in made if name in self.ends or self.read[name] & ~done]

    def held(self, done, place, reuse):
        """Bytes by tensor, held while a node runs after these others; `reuse`: as in the schedule `in-place`."""
        node, tensors, roots = self.nodes[place], self.tensors, self.roots
        if not reuse:
            return {name: tensors[name].bytes for name in (*self.after(done), *node.outputs)}
        held = {roots[name]: tensors[name].bytes for name in self.after(done)}
        free = {roots[name] for name in node.inputs} - {roots[name] for name in self.after(done | 1 << place)}
        for name in node.outputs:
            if roots[name] in held:
                continue
            held[name] = tensors[name].bytes
            if node.operator == "Concat":
                held[name] -= sum(held[root] for root in free)
            elif node.operator in ELEMENTWISE and any(self._fits(name, node, root) for root in free):
                held[name] = 0
        return {name: size for name, size in held.items() if size}

    def _fits(self, name, node, root):
        """Whether an output's shape and bytes are those of all that its node reads in this memory."""
        there = {self.tensors[one][2:] for one in node.inputs if self.roots[one] == root}
        return there == {self.tensors[name][2:]}
